//! What a request says its answer must be, under the names of OpenAI, llama-server and vLLM.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::{
    api::{Service, error::ApiError, fields::Fields},
    engine::{
        Gbnf, Grammar, Job,
        constrain::{Body, Refused, Source, Strictness},
    },
};

/// A form that the answer must have.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::api) struct Form {
    /// The field that asks for it.
    pub(in crate::api) param: String,
    pub(in crate::api) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::api) enum Kind {
    /// A grammar of llama.cpp.
    Gbnf(String),
    Body(Body),
}

/// Fields of which at most one may ask for something; `response_format` and `json_schema` come before them.
const OTHERS: [&str; 8] = [
    "grammar",
    "regex",
    "lark",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
];

/// The form that a request asks for, if any.
pub(in crate::api) fn read(fields: Fields<'_>) -> Result<Option<Form>, ApiError> {
    let mut form = json_form(fields)?;
    for name in OTHERS {
        let Some(kind) = other(fields, name)? else {
            continue;
        };
        let (param, kind) = kind;
        if let Some(first) = form.replace(Form { param, kind }) {
            let message = format!("{name}: not together with {}", first.param);
            return Err(ApiError::invalid(name, message));
        }
    }
    Ok(form)
}

/// For an answer that is nothing but its content: a grammar of llama.cpp goes into the job as it is, anything else is
/// to be compiled.
pub(in crate::api) fn apply(
    fields: Fields<'_>,
    job: &mut Job,
) -> Result<Option<Pending>, ApiError> {
    Ok(read(fields)?.and_then(|Form { param, kind }| match kind {
        Kind::Gbnf(gbnf) => {
            job.grammar = Some(Grammar::Gbnf(Gbnf {
                gbnf,
                ..Gbnf::default()
            }));
            None
        }
        Kind::Body(body) => Some(Pending {
            param,
            source: body.into(),
            purpose: Purpose::Hold,
        }),
    }))
}

/// `response_format`, or llama-server's `json_schema`.
fn json_form(fields: Fields<'_>) -> Result<Option<Form>, ApiError> {
    let given = |param: &str, schema: &Value, strictness| {
        schema_of(param, schema).map(|schema| {
            Some(Form {
                param: param.to_owned(),
                kind: Kind::Body(Body::Json { schema, strictness }),
            })
        })
    };
    let alone = match fields.get("json_schema") {
        Some(schema) => given("json_schema", schema, Strictness::Relaxed)?,
        None => None,
    };
    let Some(format) = fields.object("response_format")? else {
        return Ok(alone);
    };
    let format = Fields::within(format, "response_format.");
    match format.text("type")? {
        Some("text") => Ok(alone),
        Some("json_object") => match (format.get("schema"), alone) {
            (Some(schema), _) => given("response_format.schema", schema, Strictness::Relaxed),
            (None, Some(alone)) => Ok(Some(alone)),
            (None, None) => given("response_format", &json!({}), Strictness::Relaxed),
        },
        Some("json_schema") => {
            let Some(wrapper) = format.object("json_schema")? else {
                return Err(format.wrong("json_schema", "an object"));
            };
            let wrapper = Fields::within(wrapper, "response_format.json_schema.");
            let strictness = match wrapper.flag("strict")? {
                Some(true) => Strictness::Strict,
                Some(false) | None => Strictness::Relaxed,
            };
            let schema = wrapper.get("schema").cloned().unwrap_or_else(|| json!({}));
            given("response_format.json_schema.schema", &schema, strictness)
        }
        _ => Err(format.wrong("type", r#""text", "json_object" or "json_schema""#)),
    }
}

/// A schema as it is enforced: answers are objects where nothing else is said.
fn schema_of(param: &str, schema: &Value) -> Result<Value, ApiError> {
    match schema {
        Value::Object(keywords) if keywords.is_empty() => Ok(json!({"type": "object"})),
        Value::Object(_) => Ok(schema.clone()),
        _ => {
            let message = format!("{param}: expected a JSON schema, an object");
            Err(ApiError::invalid(param, message))
        }
    }
}

fn other(fields: Fields<'_>, name: &str) -> Result<Option<(String, Kind)>, ApiError> {
    let kind = match name {
        "grammar" | "guided_grammar" => text(fields, name)?.map(grammar),
        "regex" | "guided_regex" => text(fields, name)?.map(|text| Kind::Body(Body::Regex(text))),
        "lark" => text(fields, name)?.map(|text| Kind::Body(Body::Lark(text))),
        "guided_json" => json(name, fields.get(name))?,
        "guided_choice" => choice(fields, name)?,
        _ => return structured(fields, name),
    };
    Ok(kind.map(|kind| (name.to_owned(), kind)))
}

/// vLLM's `structured_outputs`.
fn structured(fields: Fields<'_>, name: &str) -> Result<Option<(String, Kind)>, ApiError> {
    const ACCEPTED: &str = "one of json, regex, choice and grammar";
    let Some(object) = fields.object(name)? else {
        return Ok(None);
    };
    let inside = Fields::within(object, "structured_outputs.");
    let mut asked = object
        .iter()
        .filter(|(_, value)| !matches!(value, Value::Null | Value::Bool(false)));
    let Some((key, _)) = asked.next() else {
        return Ok(None);
    };
    if asked.next().is_some() {
        return Err(fields.wrong(name, ACCEPTED));
    }
    let param = format!("structured_outputs.{key}");
    let kind = match key.as_str() {
        "json" => json(&param, inside.get(key))?,
        "regex" => text(inside, key)?.map(|text| Kind::Body(Body::Regex(text))),
        "choice" => choice(inside, key)?,
        "grammar" => text(inside, key)?.map(grammar),
        _ => return Err(fields.wrong(name, ACCEPTED)),
    };
    Ok(kind.map(|kind| (param, kind)))
}

/// Nothing is what an empty text says.
fn text(fields: Fields<'_>, name: &str) -> Result<Option<String>, ApiError> {
    let text = fields.text(name)?.filter(|text| !text.is_empty());
    Ok(text.map(str::to_owned))
}

/// A schema, also as a text that holds one.
fn json(param: &str, given: Option<&Value>) -> Result<Option<Kind>, ApiError> {
    let schema = match given {
        None => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|error| {
            ApiError::invalid(param, format!("{param}: expected a JSON schema: {error}"))
        })?,
        Some(schema) => schema.clone(),
    };
    Ok(Some(Kind::Body(Body::Json {
        schema: schema_of(param, &schema)?,
        strictness: Strictness::Relaxed,
    })))
}

fn choice(fields: Fields<'_>, name: &str) -> Result<Option<Kind>, ApiError> {
    let Some(texts) = fields.array(name)?.filter(|texts| !texts.is_empty()) else {
        return Ok(None);
    };
    let texts = texts.iter().map(|text| text.as_str().map(str::to_owned));
    match texts.collect() {
        Some(texts) => Ok(Some(Kind::Body(Body::Choice(texts)))),
        None => Err(fields.wrong(name, "an array of strings")),
    }
}

/// GBNF has a rule `root ::=`; Lark has one `start:`, or says that it is llguidance's.
fn grammar(text: String) -> Kind {
    let is_lark = |line: &str| {
        let line = line.trim_start();
        let start = line.strip_prefix("start").map(str::trim_start);
        line.starts_with("%llguidance")
            || start.is_some_and(|rest| rest.starts_with(':') && !rest.starts_with("::="))
    };
    if text.lines().any(is_lark) {
        Kind::Body(Body::Lark(text))
    } else {
        Kind::Gbnf(text)
    }
}

/// The parameters of tools that shall be called as their schemas say or not at all. What is wrong with the tools
/// themselves is found elsewhere.
pub(in crate::api) fn strict_tools(fields: Fields<'_>) -> Vec<Pending> {
    let tools = fields.get("tools").and_then(Value::as_array);
    let mut strict = Vec::new();
    for (at, tool) in tools.into_iter().flatten().enumerate() {
        let function = &tool["function"];
        if function["strict"] == true && function["parameters"].is_object() {
            strict.push(Pending {
                param: format!("tools[{at}].function.parameters"),
                source: Source::from(Body::Json {
                    schema: function["parameters"].clone(),
                    strictness: Strictness::Strict,
                }),
                purpose: Purpose::Check,
            });
        }
    }
    strict
}

/// A constraint that the answer waits for.
pub(in crate::api) struct Pending {
    pub(in crate::api) param: String,
    pub(in crate::api) source: Source,
    pub(in crate::api) purpose: Purpose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Purpose {
    /// The answer is held to it.
    Hold,
    /// It shall be sound; something else holds the answer.
    Check,
}

impl Pending {
    /// Compiles it, for all jobs, and returns what of it is not enforced.
    pub(in crate::api) async fn apply(
        self,
        service: &Service,
        jobs: &mut [Job],
    ) -> Result<Vec<String>, ApiError> {
        let made = service.constraints.compile(self.source).await;
        let constraint = made.map_err(|refused| error(&self.param, &refused))?;
        if self.purpose == Purpose::Hold {
            for job in jobs {
                job.grammar = Some(Grammar::Guide(Arc::clone(&constraint)));
            }
        }
        let told = constraint.warnings().iter();
        Ok(told
            .map(|warning| format!("{}: {warning}", self.param))
            .collect())
    }
}

fn error(param: &str, refused: &Refused) -> ApiError {
    match refused {
        Refused::Schema { pointer, why } if !pointer.is_empty() => {
            let param = format!("{param}#{pointer}");
            let message = format!("{param}: {why}");
            ApiError::invalid(param, message)
        }
        Refused::Schema { .. } | Refused::Text(_) | Refused::TooSlow(_) => {
            ApiError::invalid(param, format!("{param}: {refused}"))
        }
        Refused::Busy(wait) => ApiError::Compilers(*wait),
        Refused::Broken(cause) => ApiError::Internal(format!("{param}: {cause}")),
    }
}

/// `body` without the fields that [`read`] reads.
pub(in crate::api) fn without(mut body: Map<String, Value>) -> Map<String, Value> {
    for name in ["response_format", "json_schema"].iter().chain(&OTHERS) {
        body.shift_remove(*name);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(body: Value) -> String {
        let Value::Object(body) = body else {
            unreachable!("tests pass objects")
        };
        match read(Fields::new(&body)) {
            Ok(None) => "none".to_owned(),
            Ok(Some(form)) => format!("{}: {:?}", form.param, form.kind),
            Err(error) => format!("error {error}"),
        }
    }

    #[test]
    fn every_name_for_a_form_is_known() {
        let wrapped = |inner: Value| json!({"response_format": {"type": "json_schema", "json_schema": inner}});
        let told: Vec<_> = [
            json!({}),
            json!({"response_format": {"type": "text"}, "grammar": "", "guided_choice": [], "regex": null, "structured_outputs": {}}),
            json!({"response_format": {"type": "json_object"}}),
            json!({"response_format": {"type": "json_object"}, "json_schema": {"type": "array"}}),
            wrapped(json!({"name": "x", "strict": true, "schema": {"type": "null"}})),
            wrapped(json!({"name": "x"})),
            json!({"guided_json": "{\"type\": \"null\"}"}),
            json!({"structured_outputs": {"json": {"type": "null"}, "disable_any_whitespace": false}}),
            json!({"structured_outputs": {"choice": ["a"]}}),
            json!({"guided_regex": "a+"}),
            json!({"lark": "start: \"a\""}),
            json!({"grammar": "root ::= \"start:\""}),
            json!({"grammar": "// mine\nstart : \"a\""}),
            json!({"grammar": "%llguidance {}\nstart: \"a\""}),
        ]
        .map(form)
        .into();
        insta::assert_snapshot!(told.join("\n"), @r#"
        none
        none
        response_format: Body(Json { schema: Object {"type": String("object")}, strictness: Relaxed })
        json_schema: Body(Json { schema: Object {"type": String("array")}, strictness: Relaxed })
        response_format.json_schema.schema: Body(Json { schema: Object {"type": String("null")}, strictness: Strict })
        response_format.json_schema.schema: Body(Json { schema: Object {"type": String("object")}, strictness: Relaxed })
        guided_json: Body(Json { schema: Object {"type": String("null")}, strictness: Relaxed })
        structured_outputs.json: Body(Json { schema: Object {"type": String("null")}, strictness: Relaxed })
        structured_outputs.choice: Body(Choice(["a"]))
        guided_regex: Body(Regex("a+"))
        lark: Body(Lark("start: \"a\""))
        grammar: Gbnf("root ::= \"start:\"")
        grammar: Body(Lark("// mine\nstart : \"a\""))
        grammar: Body(Lark("%llguidance {}\nstart: \"a\""))
        "#);
    }

    #[test]
    fn a_form_that_cannot_be_read_is_named() {
        let told: Vec<_> = [
            json!({"regex": "a", "lark": "b"}),
            json!({"response_format": {"type": "json_object"}, "guided_choice": ["a"]}),
            json!({"response_format": {"type": "xml"}}),
            json!({"response_format": {"type": "json_schema"}}),
            json!({"response_format": {"type": "json_schema", "json_schema": {"strict": 1}}}),
            json!({"json_schema": true}),
            json!({"guided_json": "{"}),
            json!({"guided_choice": ["a", 1]}),
            json!({"structured_outputs": {"json": {}, "regex": "a"}}),
            json!({"structured_outputs": {"structural_tag": "a"}}),
            json!({"regex": 1}),
        ]
        .map(form)
        .into();
        insta::assert_snapshot!(told.join("\n"), @r#"
        error lark: not together with regex
        error guided_choice: not together with response_format
        error response_format.type: expected "text", "json_object" or "json_schema", got "xml"
        error response_format.json_schema: expected an object, but it is missing
        error response_format.json_schema.strict: expected true or false, got 1
        error json_schema: expected a JSON schema, an object
        error guided_json: expected a JSON schema: EOF while parsing an object at line 1 column 1
        error guided_choice: expected an array of strings, got an array of 2
        error structured_outputs: expected one of json, regex, choice and grammar, got an object
        error structured_outputs: expected one of json, regex, choice and grammar, got an object
        error regex: expected a string, got 1
        "#);
    }
}
