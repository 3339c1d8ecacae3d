//! Answers back to reasoning, content and calls.

use llm_server::chat::{Delta, Parser};
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::families::{
    CONTENT, FAMILIES, Message, REASONING, arguments, family, plain, read, read_every_way,
    with_tools,
};

#[test]
fn a_tool_call_of_every_family_is_read_back_however_it_is_cut() {
    let mut seen = 0;
    for family in &FAMILIES {
        let Some(answer) = family.called else {
            continue;
        };
        let rendered = family.render(&with_tools());
        let message = read_every_way(family.name, &rendered, answer);
        let [(name, given)] = &message.calls[..] else {
            panic!("{}: {message:?}", family.name)
        };
        assert_eq!(name, "get_weather", "{}", family.name);
        let given: Value =
            serde_json::from_str(given).unwrap_or_else(|e| panic!("{}: {e}: {given}", family.name));
        assert_eq!(given, arguments(), "{}", family.name);
        assert_eq!(message.content.trim(), "", "{}", family.name);
        seen += 1;
    }
    assert_eq!(seen, 11);
}

#[test]
fn reasoning_of_every_family_that_thinks_is_told_apart_however_it_is_cut() {
    let mut seen = 0;
    for family in &FAMILIES {
        let Some(answer) = family.thought else {
            continue;
        };
        for request in [plain(), with_tools()] {
            let rendered = family.render(&request);
            let message = read_every_way(family.name, &rendered, answer);
            assert_eq!(message.reasoning.trim(), REASONING, "{}", family.name);
            assert_eq!(message.content.trim(), CONTENT, "{}", family.name);
        }
        seen += 1;
    }
    assert_eq!(seen, 7);
}

#[test]
fn reasoning_format_none_leaves_the_thoughts_in_the_content() {
    let mut request = plain();
    request["reasoning_format"] = json!("none");
    let qwen = family("qwen3");
    let answer = qwen.thought.expect("it thinks");
    let message = read_every_way("qwen3", &qwen.render(&request), answer);
    assert_eq!(message.content, answer);
    assert_eq!(message.reasoning, "");
}

#[test]
fn parallel_calls_have_rising_indexes_and_ids_of_their_own() {
    let one = family("qwen3").called.expect("it calls");
    let answer = format!("I look twice.\n{one}\n{one}");
    let rendered = family("qwen3").render(&with_tools());
    let message = read(&rendered, [answer.as_str()]);
    assert_eq!(message.calls.len(), 2);
    assert_eq!(message.content.trim(), "I look twice.");
    assert_ne!(message.ids[0], message.ids[1]);
    let again = read(&rendered, [answer.as_str()]);
    for id in message.ids.iter().chain(&again.ids) {
        let tail = id.strip_prefix("call_").expect("a prefix");
        assert_eq!(tail.len(), 32);
        assert!(tail.chars().all(|c| c.is_ascii_alphanumeric()), "{id}");
    }
    assert_ne!(message.ids, again.ids);
    assert_eq!(
        read_every_way("qwen3", &rendered, &answer),
        message.without_ids()
    );
}

#[test]
fn an_id_that_the_model_writes_is_kept() {
    let mistral = family("mistral");
    let message = read(&mistral.render(&with_tools()), mistral.called);
    assert_eq!(message.ids, ["aB3dE6gH9"]);
}

#[test]
fn arguments_stream_before_they_are_complete() {
    let rendered = family("qwen3").render(&with_tools());
    let mut parser = Parser::new(&rendered).expect("a parser");
    let deltas =
        parser.push("<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"São");
    let call = deltas.iter().flat_map(|delta| &delta.tool_calls).next();
    let call = call.expect("a first fragment");
    assert_eq!(call.function.name.as_deref(), Some("get_weather"));
    let more = parser.push(" Paulo\"");
    assert!(
        matches!(&more[..], [Delta { tool_calls, .. }] if tool_calls[0].function.arguments.contains("Paulo")),
        "{more:?}"
    );
}

#[test]
fn text_that_is_no_call_after_all_is_content() {
    let rendered = family("qwen3").render(&with_tools());
    for text in [
        "<tool_call>\n{\"name\": \"nope\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>\nget_weather(Paris)\n</tool_call>",
        "<tool_call></tool_call>",
        "<tool_call>\n{\"name\": \"get_we",
        "a <tool_ca",
        "<",
        "1 < 2, {\"name\": 5}",
    ] {
        let message = read_every_way("qwen3", &rendered, text);
        assert_eq!(message.content, text);
        assert_eq!(message.calls, []);
    }
}

#[test]
fn nothing_of_a_spoilt_answer_is_lost() {
    let rendered = family("qwen3").render(&with_tools());
    let call = family("qwen3").called.expect("it calls");
    let cases = [
        (
            "<think>\nHm.\n</think>\n\n<tool_call>\n{\"name\": \"nope\"}\n</tool_call>".to_owned(),
            "Hm.",
            "<tool_call>\n{\"name\": \"nope\"}\n</tool_call>",
            0,
        ),
        (format!("{call}\nThat was it."), "", "That was it.", 1),
        (format!("First.\n{call} Then?"), "", "First.\n Then?", 1),
    ];
    for (text, reasoning, content, calls) in cases {
        let message = read_every_way("qwen3", &rendered, &text);
        assert_eq!(message.reasoning.trim(), reasoning, "{text}");
        assert_eq!(message.content.trim(), content, "{text}");
        assert_eq!(message.calls.len(), calls, "{text}");
    }
}

#[test]
fn an_answer_cut_off_in_its_thoughts_keeps_them() {
    let rendered = family("qwen3").render(&plain());
    for (text, reasoning) in [
        ("<think>\nI was think", "I was think"),
        ("<think>\nA < B </thi", "A < B </thi"),
        ("<think>", ""),
    ] {
        let message = read_every_way("qwen3", &rendered, text);
        assert_eq!(message.reasoning.trim(), reasoning, "{text}");
        assert_eq!(message.content, "", "{text}");
    }
}

#[test]
fn the_callers_own_beginning_of_the_answer_is_not_repeated() {
    for name in ["chatml", "qwen3", "llama3"] {
        let request = json!({"messages": [
            {"role": "user", "content": "Count"},
            {"role": "assistant", "content": "One, two"},
        ]});
        let rendered = family(name).render(&request);
        assert!(
            rendered.prompt.ends_with("One, two"),
            "{name}: {}",
            rendered.prompt
        );
        let message = read_every_way(name, &rendered, ", three <four>");
        assert_eq!(message.content, ", three <four>", "{name}");
    }
}

#[test]
fn deeply_nested_text_does_not_cost_the_stack() {
    for depth in [250, 200_000] {
        let open = "[".repeat(depth);
        for family in &FAMILIES {
            let rendered = family.render(&with_tools());
            for start in [
                "",
                "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": ",
                "{\"name\": \"get_weather\", \"parameters\": {\"x\": ",
                "[TOOL_CALLS][{\"name\": \"now\", \"arguments\": {\"x\": ",
            ] {
                let message = read(&rendered, [start, &open]);
                let kept = format!("{message:?}");
                assert!(
                    kept.matches('[').count() >= depth,
                    "{}: {start}",
                    family.name
                );
            }
        }
    }
}

#[test]
fn a_long_answer_is_read_in_time_that_grows_with_its_length() {
    let rendered = family("qwen3").render(&with_tools());
    let mut parser = Parser::new(&rendered).expect("a parser");
    let mut kept = 0;
    let began = std::time::Instant::now();
    let mut deltas = parser.push("<think>\n");
    for _ in 0..100_000 {
        deltas.extend(parser.push("word "));
    }
    deltas.extend(parser.push("</think>done"));
    deltas.extend(parser.finish());
    for delta in &deltas {
        kept += delta.reasoning_content.as_ref().map_or(0, String::len);
    }
    assert_eq!(kept, 500_000);
    assert_eq!(
        deltas.last(),
        Some(&Delta {
            content: Some("done".to_owned()),
            ..Delta::default()
        })
    );
    // Read at every push this is minutes: 100,000 readings of 250 kB.
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

/// Pieces of marks and words, so that random texts come near every format.
fn near_answers() -> impl Strategy<Value = Vec<&'static str>> {
    let pieces = select(vec![
        "<think>",
        "</think>",
        "\n",
        " ",
        "word",
        "ä👋",
        "<",
        "{",
        "}",
        "\"",
        "[",
        "]",
        "<tool_call>",
        "</tool_call>",
        "\n{\"name\": \"get_weather\", \"arguments\": ",
        "{\"city\": \"X\"}",
        "{\"name\": \"now\", \"parameters\": {}}",
        "[TOOL_CALLS]",
        "<|channel|>",
        "analysis",
        "final",
        "<|message|>",
        "<|end|>",
        "<|start|>assistant",
        "<arg_key>",
        "</arg_value>",
        "<function=now>",
        "</function>",
        "<|tool_call>call:now{",
        "<tool_call|>",
        "<|START_ACTION|>",
        "<｜tool▁calls▁begin｜>",
    ]);
    prop::collection::vec(pieces, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_is_an_error_no_word_of_it_is_lost_and_the_cuts_do_not_matter(pieces in near_answers()) {
        let words = pieces.iter().filter(|piece| **piece == "word").count();
        for family in &FAMILIES {
            let rendered = family.render(&with_tools());
            let message = read(&rendered, pieces.iter().copied());
            let whole = read(&rendered, [pieces.concat().as_str()]);
            prop_assert_eq!(whole.without_ids(), message.clone().without_ids(), "{}: {:?}", family.name, pieces);
            let Message { reasoning, content, calls, .. } = &message;
            let kept = format!("{reasoning}{content}{calls:?}");
            prop_assert_eq!(kept.matches("word").count(), words, "{}: {:?} became {:?}", family.name, pieces, message);
        }
    }
}
