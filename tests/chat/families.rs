//! One template of each family of tool-call and reasoning formats, with answers as its models write them.
//! The templates are our own: they keep a family's marks and leave the rest of the model's text out.

use llm_server::chat::{Chat, Delta, Parser, Rendered};
use serde_json::{Value, json};

pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) template: &'static str,
    /// A plain answer after reasoning ("Two words: hi." thought over), where the family thinks.
    pub(crate) thought: Option<&'static str>,
    /// A call of `get_weather` with [`ARGUMENTS`].
    pub(crate) called: Option<&'static str>,
}

pub(crate) const REASONING: &str = "The user greets me.\nSo do I — gladly: {\"a\": [1]}";
pub(crate) const CONTENT: &str = "Hello, you! äöü 👋";

pub(crate) fn arguments() -> Value {
    json!({"city": "São Paulo", "days": 2})
}

macro_rules! family {
    ($name:literal, $thought:expr, $called:expr) => {
        Family {
            name: $name,
            template: include_str!(concat!("../templates/", $name, ".jinja")),
            thought: $thought,
            called: $called,
        }
    };
}

const HERMES: &str = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"São Paulo\", \"days\": 2}}\n</tool_call>";

pub(crate) const FAMILIES: [Family; 11] = [
    // Neither this one nor the last has calls of its own.
    family!("chatml", None, Some(HERMES)),
    family!(
        "qwen3",
        Some(
            "<think>\nThe user greets me.\nSo do I — gladly: {\"a\": [1]}\n</think>\n\nHello, you! äöü 👋"
        ),
        Some(
            "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"São Paulo\", \"days\": 2}}\n</tool_call>"
        )
    ),
    family!(
        "qwen3-coder",
        Some("The user greets me.\nSo do I — gladly: {\"a\": [1]}\n</think>\n\nHello, you! äöü 👋"),
        Some(
            "</think>\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nSão Paulo\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>"
        )
    ),
    family!(
        "llama3",
        None,
        Some("{\"name\": \"get_weather\", \"parameters\": {\"city\": \"São Paulo\", \"days\": 2}}")
    ),
    family!(
        "mistral",
        None,
        Some(
            "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"São Paulo\", \"days\": 2}, \"id\": \"aB3dE6gH9\"}]"
        )
    ),
    family!(
        "deepseek",
        Some("The user greets me.\nSo do I — gladly: {\"a\": [1]}</think>Hello, you! äöü 👋"),
        Some(
            "</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": \"São Paulo\", \"days\": 2}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        )
    ),
    family!(
        "harmony",
        Some(
            "<|channel|>analysis<|message|>The user greets me.\nSo do I — gladly: {\"a\": [1]}<|end|><|start|>assistant<|channel|>final<|message|>Hello, you! äöü 👋"
        ),
        Some(
            "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\": \"São Paulo\", \"days\": 2}"
        )
    ),
    family!(
        "gemma",
        Some(
            "<|channel>thought\nThe user greets me.\nSo do I — gladly: {\"a\": [1]}<channel|>Hello, you! äöü 👋"
        ),
        Some("<|tool_call>call:get_weather{city:<|\"|>São Paulo<|\"|>,days:2}<tool_call|>")
    ),
    family!(
        "glm",
        Some(
            "\n<think>The user greets me.\nSo do I — gladly: {\"a\": [1]}</think>\nHello, you! äöü 👋"
        ),
        Some(
            "\n<think></think>\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>São Paulo</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>"
        )
    ),
    family!(
        "command-r",
        Some(
            "<|START_THINKING|>The user greets me.\nSo do I — gladly: {\"a\": [1]}<|END_THINKING|><|START_RESPONSE|>Hello, you! äöü 👋<|END_RESPONSE|>"
        ),
        Some(
            "<|START_THINKING|>I look.<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"get_weather\", \"parameters\": {\"city\": \"São Paulo\", \"days\": 2}}\n]<|END_ACTION|>"
        )
    ),
    family!("strict", None, Some(HERMES)),
];

pub(crate) fn family(name: &str) -> &'static Family {
    let found = FAMILIES.iter().find(|family| family.name == name);
    found.unwrap_or_else(|| panic!("no family {name}"))
}

impl Family {
    pub(crate) fn chat(&self) -> Chat {
        Chat::from_template(self.template, "<s>", "</s>")
            .unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    pub(crate) fn render(&self, request: &Value) -> Rendered {
        let rendered = self.chat().render(request);
        rendered.unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
}

pub(crate) fn plain() -> Value {
    json!({"messages": [{"role": "user", "content": "Hi"}]})
}

pub(crate) fn tools() -> Value {
    json!([
        {"type": "function", "function": {
            "name": "get_weather", "description": "Weather in a city.", "strict": true,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        }},
        {"type": "function", "function": {"name": "now", "description": null, "parameters": null}},
    ])
}

pub(crate) fn with_tools() -> Value {
    let mut request = plain();
    request["tools"] = tools();
    request
}

/// All deltas of an answer, joined; ids are left out because each reading makes its own.
#[derive(Debug, Default, PartialEq, Clone)]
pub(crate) struct Message {
    pub(crate) reasoning: String,
    pub(crate) content: String,
    /// Name and arguments.
    pub(crate) calls: Vec<(String, String)>,
    pub(crate) ids: Vec<String>,
}

impl Message {
    pub(crate) fn without_ids(mut self) -> Self {
        self.ids.clear();
        self
    }

    fn add(&mut self, deltas: Vec<Delta>) {
        for delta in deltas {
            self.reasoning
                .push_str(delta.reasoning_content.as_deref().unwrap_or(""));
            self.content
                .push_str(delta.content.as_deref().unwrap_or(""));
            for call in delta.tool_calls {
                let index = usize::try_from(call.index).expect("a small index");
                if index == self.calls.len() {
                    let name = call.function.name.expect("the first fragment has the name");
                    assert_eq!(call.kind.as_deref(), Some("function"));
                    self.ids
                        .push(call.id.expect("the first fragment has the id"));
                    self.calls.push((name, String::new()));
                } else {
                    assert_eq!(index + 1, self.calls.len(), "only the last call grows");
                    assert_eq!((call.id, call.function.name), (None, None));
                }
                self.calls[index].1.push_str(&call.function.arguments);
            }
        }
    }
}

/// The answer as a client sees it when the text comes in these pieces.
pub(crate) fn read<'a>(rendered: &Rendered, pieces: impl IntoIterator<Item = &'a str>) -> Message {
    let mut parser = Parser::new(rendered).expect("a parser");
    let mut message = Message::default();
    for piece in pieces {
        message.add(parser.push(piece));
    }
    message.add(parser.finish());
    message
}

/// Reads whole, character by character and cut in two at every point; all must agree.
pub(crate) fn read_every_way(name: &str, rendered: &Rendered, text: &str) -> Message {
    let whole = read(rendered, [text]).without_ids();
    let characters = read(rendered, text.split_inclusive(|_| true)).without_ids();
    assert_eq!(whole, characters, "{name}: {text:?} character by character");
    for (at, _) in text.char_indices() {
        let (left, right) = text.split_at(at);
        let halves = read(rendered, [left, right]).without_ids();
        assert_eq!(whole, halves, "{name}: cut into {left:?} and {right:?}");
    }
    whole
}
