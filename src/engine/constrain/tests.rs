//! Constraints of every kind: what they allow, what is refused, and what absurd ones cost.

use std::{sync::Arc, time::Instant};

use serde_json::{Value, json};

use super::{Body, Constraint, Constraints, Frame, Part, Refused, Source, Strictness};
use crate::engine::{
    Token,
    fake::{EOS, FakeVocab},
};

/// `<tool>` of the fake vocabulary.
const TOOL: Token = 257;

fn constraints() -> Arc<Constraints> {
    Constraints::new(Arc::new(FakeVocab))
}

async fn compile(source: impl Into<Source>) -> Result<Arc<Constraint>, Refused> {
    constraints().compile(source.into()).await
}

fn strict(schema: Value) -> Source {
    let strictness = Strictness::Strict;
    Body::Json { schema, strictness }.into()
}

fn relaxed(schema: Value) -> Source {
    let strictness = Strictness::Relaxed;
    Body::Json { schema, strictness }.into()
}

/// Whether the whole text, and then its end, is allowed.
fn takes(constraint: &Constraint, text: &str) -> bool {
    let mut guide = constraint.begin();
    for token in text.bytes().map(Token::from).chain([EOS]) {
        if !guide.allows(token).unwrap() {
            return false;
        }
        assert!(guide.allowed().unwrap().is_allowed(token.cast_unsigned()) || token != EOS);
        guide.accept(token).unwrap();
    }
    true
}

async fn check(source: impl Into<Source>, good: &[&str], bad: &[&str]) {
    let source = source.into();
    let constraint = compile(source.clone())
        .await
        .unwrap_or_else(|why| panic!("{source:?}: {why}"));
    for text in good {
        assert!(takes(&constraint, text), "{source:?} refuses {text}");
    }
    for text in bad {
        assert!(!takes(&constraint, text), "{source:?} takes {text}");
    }
}

#[tokio::test]
async fn a_schema_lets_only_its_instances_pass() {
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#", "title": "T", "description": "d",
        "type": "object",
        "properties": {
            "kind": {"enum": ["a", "b\"c"], "default": "a"},
            "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]+$"},
            "when": {"type": "string", "format": "date"},
            "tags": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 2}
        },
        "required": ["kind", "code", "when", "tags"], "additionalProperties": false
    });
    for source in [strict(schema.clone()), relaxed(schema)] {
        check(
            source,
            &[
                r#"{"kind": "a", "code": "XY12", "when": "2024-02-29", "tags": [1, 2]}"#,
                r#"{"kind": "b\"c", "code": "XY1", "when": "2024-12-31", "tags": []}"#,
            ],
            &[
                r#"{"kind": "c", "code": "XY12", "when": "2024-02-29", "tags": []}"#,
                r#"{"kind": "a", "code": "X12", "when": "2024-02-29", "tags": []}"#,
                r#"{"kind": "a", "code": "XY12", "when": "2024-13-29", "tags": []}"#,
                r#"{"kind": "a", "code": "XY12", "when": "2024-02-29", "tags": [1, 2, 3]}"#,
                r#"{"kind": "a", "code": "XY12", "when": "2024-02-29"}"#,
                r#"{"kind":  "a", "code": "XY12", "when": "2024-02-29", "tags": []}"#,
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn an_object_has_other_properties_only_where_they_are_allowed() {
    let one = |more: Value| {
        let mut schema = json!({"type": "object", "properties": {"a": {"type": "object", "properties": {}}}, "required": ["a"]});
        for (name, value) in more.as_object().unwrap() {
            schema[name] = value.clone();
        }
        strict(schema)
    };
    check(
        one(json!({})),
        &[r#"{"a": {}}"#],
        &[r#"{"a": {}, "b": 1}"#, r#"{"a": {"b": 1}}"#],
    )
    .await;
    check(
        one(json!({"additionalProperties": true})),
        &[r#"{"a": {}, "b": 1}"#],
        &[],
    )
    .await;
    check(
        one(json!({"required": ["a", "b"]})),
        &[r#"{"a": {}, "b": 1}"#],
        &[r#"{"a": {}}"#],
    )
    .await;
    let base = json!({"properties": {"b": {"type": "integer"}}, "required": ["b"]});
    check(
        one(json!({"allOf": [base]})),
        &[r#"{"a": {}, "b": 1}"#],
        &[r#"{"a": {}}"#],
    )
    .await;
}

#[tokio::test]
async fn recursion_and_references_are_followed() {
    let tree = json!({
        "$ref": "#/$defs/node",
        "$defs": {"node": {
            "type": "object",
            "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
            "required": ["v", "next"], "additionalProperties": false
        }}
    });
    check(
        strict(tree),
        &[r#"{"v": 1, "next": {"v": 2, "next": null}}"#],
        &[r#"{"v": 1, "next": {"v": 2}}"#],
    )
    .await;
    let own = json!({"type": "array", "items": {"$ref": "#"}});
    check(strict(own), &["[[], [[]]]"], &["[1]"]).await;
}

#[tokio::test]
async fn regular_expressions_choices_and_lark_bind_the_whole_answer() {
    let regex = Body::Regex(r"^\d{3}-[a-z]+/\w*$".into());
    check(
        regex,
        &["123-ab/", "000-z/x"],
        &["12-ab/", "123-ab", "a123-ab/"],
    )
    .await;
    let choice = Body::Choice(vec!["yes".into(), "a \"b\"\n\u{7f}ä".into()]);
    check(choice, &["yes", "a \"b\"\n\u{7f}ä"], &["ye", "no"]).await;
    let lark = "%llguidance {}\nstart: \"sum \" NUMBER (\"+\" NUMBER)*\nNUMBER: /[0-9]+/\n";
    check(
        Body::Lark(lark.into()),
        &["sum 1+22+3"],
        &["sum ", "sum 1+"],
    )
    .await;
}

#[tokio::test]
async fn a_strict_schema_that_cannot_be_enforced_is_refused_with_the_place() {
    let place = |schema: Value| async {
        match compile(strict(schema)).await {
            Err(Refused::Schema { pointer, why }) => format!("{pointer} | {why}"),
            other => panic!("{other:?}"),
        }
    };
    insta::assert_snapshot!(place(json!({"type": "object", "properties": {"a": {"type": "string"}, "b/c": {"not": {"type": "null"}}}})).await, @"/properties/b~1c/not | this keyword is not supported");
    insta::assert_snapshot!(place(json!({"type": "array", "uniqueItems": true})).await, @"/uniqueItems | this keyword is not supported");
    insta::assert_snapshot!(place(json!({"anyOf": [{"type": "string", "format": "phone"}]})).await, @"/anyOf/0/format | Unknown format: phone");
    insta::assert_snapshot!(place(json!({"properties": {"x": {"$ref": "#/$defs/d"}}, "$defs": {"d": {"type": "string", "pattern": "a(?=b)"}}})).await, @"/$defs/d/pattern | regex parse error: look-around, including look-ahead and look-behind, is not supported");
    insta::assert_snapshot!(place(json!({"oneOf": [{"type": "integer"}, {"type": "integer", "minimum": 3}]})).await, @"/oneOf | supported only where its schemas exclude each other by type, constant or required property; anyOf has no such limit");
    insta::assert_snapshot!(place(json!({"type": "string", "minLength": 3, "maxLength": 2})).await, @"/minLength | Unsatisfiable schema: minLength (3) is greater than maxLength (2)");
    insta::assert_snapshot!(place(json!({"properties": {"a": {"type": "text"}}})).await, @"/properties/a/type | Invalid type: text");
    insta::assert_snapshot!(place(json!({"properties": {"a": {"$ref": "#/nowhere"}}})).await, @"/properties/a/$ref | Reference segment 'nowhere' not found in '#/nowhere'.");
    insta::assert_snapshot!(place(json!({"if": {}, "then": {}, "else": {}})).await, @"/if | this keyword is not supported");
}

#[tokio::test]
async fn a_relaxed_schema_loses_what_cannot_be_enforced_and_says_so() {
    let schema = json!({
        "type": "object",
        "properties": {
            "a": {"type": "string", "not": {"const": "x"}, "format": "phone"},
            "b": {"oneOf": [{"type": "integer"}, {"type": "integer", "minimum": 3}]}
        },
        "required": ["a", "b"], "additionalProperties": false
    });
    let constraint = compile(relaxed(schema)).await.unwrap();
    assert!(takes(&constraint, r#"{"a": "x", "b": 4}"#));
    assert!(!takes(&constraint, r#"{"a": 1, "b": 4}"#));
    insta::assert_snapshot!(constraint.warnings().join("\n"), @r#"
    #/properties/a/not: not enforced: this keyword is not supported
    #/properties/a/format: not enforced: Unknown format: phone
    oneOf not fully supported, falling back to anyOf. This may cause validation errors in some cases.
    "#);
    let malformed = compile(relaxed(json!({"properties": {"a": {"type": "text"}}}))).await;
    assert!(
        matches!(malformed, Err(Refused::Schema { pointer, .. }) if pointer == "/properties/a/type")
    );
}

#[tokio::test]
async fn absurd_constraints_are_answered_in_bounded_time() {
    let mut deep = json!({"type": "string"});
    for _ in 0..1000 {
        deep = json!({"type": "array", "items": deep});
    }
    let long: Vec<_> = (0..15_000).map(|n| format!("{:064}", n * 7919)).collect();
    let chain: serde_json::Map<String, Value> = (0..5000)
        .map(|n| {
            (
                format!("d{n}"),
                json!({"type": "array", "items": {"$ref": format!("#/$defs/d{}", n + 1)}}),
            )
        })
        .collect();
    let wide: serde_json::Map<String, Value> = (0..1900)
        .map(|n| (format!("p{n}"), json!({"type": "integer"})))
        .collect();
    let patterns: serde_json::Map<String, Value> = (0..60)
        .map(|n| (format!("^(a|b)*{n}(a|b){{40}}"), json!(true)))
        .collect();
    let product: Vec<_> = (0..12)
        .map(|n| json!({"anyOf": (0..12).map(|m| json!({"type": "object", "properties": {format!("k{n}"): {"const": m}}})).collect::<Vec<_>>()}))
        .collect();
    let sources: Vec<Source> = vec![
        strict(deep),
        strict(json!({"enum": long})),
        strict(json!({"$ref": "#/$defs/d0", "$defs": chain})),
        strict(json!({"type": "object", "properties": wide})),
        strict(json!({"type": "object", "patternProperties": patterns})),
        strict(json!({"allOf": product})),
        strict(json!({"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000_000})),
        strict(json!({"type": "string", "minLength": 1_000_000_000})),
        strict(json!({"type": "string", "pattern": "^(((a{1,1000}){1,1000}){1,1000}){1,1000}$"})),
        strict(
            json!({"type": "number", "multipleOf": 1e-300, "minimum": -1e308, "maximum": 1e308}),
        ),
        strict(
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        ),
        Body::Regex("(((a{1,1000}){1,1000}){1,1000}){1,1000}".into()).into(),
        Body::Regex("(a|b)*a(a|b){2000}".into()).into(),
        Body::Regex("(".repeat(8000)).into(),
        Body::Regex("(a*)*".repeat(3000)).into(),
        Body::Lark(format!(
            "start: {}\"a\"{}",
            "(".repeat(4000),
            ")".repeat(4000)
        ))
        .into(),
        Body::Lark(format!("start: {}", "a".repeat(100_000))).into(),
        Body::Lark("start: a\na: a a | \"x\"\n".into()).into(),
        Body::Lark("start: (\"a\"{1,1000}){1,1000}".into()).into(),
        Body::Choice((0..10_000).map(|n| format!("choice {n}")).collect()).into(),
    ];
    let constraints = constraints();
    for source in sources {
        let began = Instant::now();
        let told: String = format!("{source:?}").chars().take(120).collect();
        let made = constraints.compile(source).await;
        let took = began.elapsed();
        assert!(took.as_secs() < 8, "{told}: {took:?}");
        if let Ok(constraint) = made {
            // It can also be walked, or ends its own answer.
            let mut guide = constraint.begin();
            for _ in 0..50 {
                let Ok(allowed) = guide.allowed() else { break };
                let Some(token) = allowed.iter().next() else {
                    break;
                };
                if guide.accept(token.cast_signed()).is_err() {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn equal_constraints_are_compiled_once() {
    let constraints = constraints();
    let source = || strict(json!({"type": "object"}));
    let (one, two) = tokio::join!(constraints.compile(source()), constraints.compile(source()));
    let three = constraints.compile(source()).await.unwrap();
    assert!(Arc::ptr_eq(&one.unwrap(), &two.unwrap()));
    let other = constraints
        .compile(relaxed(json!({"type": "object"})))
        .await
        .unwrap();
    assert!(!Arc::ptr_eq(&three, &other));
}

#[tokio::test]
async fn what_must_come_next_is_forced_and_answers_do_not_touch_each_other() {
    let schema = json!({"type": "object", "properties": {"name": {"enum": ["x"]}}, "required": ["name"], "additionalProperties": false});
    let constraint = compile(strict(schema)).await.unwrap();
    let text = |tokens: &[Token]| -> String {
        tokens
            .iter()
            .map(|token| u8::try_from(*token).map_or('$', char::from))
            .collect()
    };
    let mut guide = constraint.begin();
    assert_eq!(text(&guide.forced(3, |_| true).unwrap()), "{\"n");
    let colon = Token::from(b':');
    assert_eq!(
        text(&guide.forced(99, |token| token != colon).unwrap()),
        "ame\""
    );
    assert_eq!(text(&guide.forced(99, |_| true).unwrap()), ": \"x\"}$");
    assert!(guide.forced(99, |_| true).unwrap().is_empty());
    assert_eq!(
        text(&constraint.begin().forced(99, |_| true).unwrap()),
        "{\"name\": \"x\"}$"
    );
}

#[tokio::test]
async fn a_frame_lets_reasoning_pass_before_the_answer() {
    let thought = vec![
        Part::Mark("<think>".into()),
        Part::Until("</think>".into()),
        Part::Space,
    ];
    let frame = Frame {
        parts: vec![Part::Optional(thought), Part::Answer],
        begun: String::new(),
    };
    let body = strict(json!({"type": "array", "items": {"type": "integer"}})).body;
    check(
        Source {
            body: body.clone(),
            frame,
        },
        &[
            "[1]",
            "<think>hm {\"a\" < </think>\n\n[1]",
            "<think></think>[1]",
        ],
        &[
            "<think>[1]",
            "hm</think>[1]",
            "\n[1]",
            "<think></think>\n\n\n\n\n[1]",
        ],
    )
    .await;
    let opened = Frame {
        parts: vec![Part::Until("</think>".into()), Part::Space, Part::Answer],
        begun: "so".into(),
    };
    check(
        Source {
            body,
            frame: opened,
        },
        &["hm</think>[1]", "</think>\n[]"],
        &["[1]"],
    )
    .await;
}

#[tokio::test]
async fn control_tokens_may_stand_around_the_answer() {
    let frame = Frame {
        parts: vec![Part::Answer, Part::Mark("done".into())],
        begun: "y".into(),
    };
    let body = Body::Choice(vec!["yes".into()]);
    check(Source { body, frame }, &["esdone"], &["yesdone"]).await;
    let constraint = compile(Body::Lark(format!(
        "start: until \"x\"\nuntil: /(?s:.*)/ <[{TOOL}]>"
    )))
    .await
    .unwrap();
    let mut guide = constraint.begin();
    for token in [
        Token::from(b'a'),
        Token::from(b'<'),
        TOOL,
        Token::from(b'x'),
        EOS,
    ] {
        assert!(guide.allows(token).unwrap(), "{token}");
        guide.accept(token).unwrap();
    }
}
