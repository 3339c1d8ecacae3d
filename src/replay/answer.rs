//! What an answer says, whole or streamed, without what is new in every answer (ids and times).

mod dialects;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The choices of an answer, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub choices: Vec<Choice>,
    /// The error that ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    pub content: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<Call>,
    pub finish_reason: Option<String>,
    /// Of each token, where they were asked for: its text and its log-probability, as they were written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<(String, Value)>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Call {
    pub name: String,
    pub arguments: String,
}

impl Answer {
    /// Reads the body of an answer: JSON, lines of JSON, or server-sent events.
    pub fn read(body: &str) -> Result<Self, String> {
        let mut answer = Self::default();
        let is_json = body.trim_start().starts_with(['{', '[']);
        if is_json && let Ok(value) = serde_json::from_str::<Value>(body) {
            match &value {
                Value::Array(parts) => parts.iter().for_each(|part| answer.take(part)),
                whole => answer.take(whole),
            }
            return Ok(answer);
        }
        for line in body.lines() {
            let data = if is_json {
                Some(line)
            } else {
                line.strip_prefix("data:")
            };
            let Some(data) = data.map(str::trim) else {
                continue;
            };
            if !data.is_empty() && data != "[DONE]" {
                let value: Value = serde_json::from_str(data).map_err(|error| error.to_string())?;
                answer.take(&value);
            }
        }
        Ok(answer)
    }

    fn take(&mut self, part: &Value) {
        if let Some(error) = part.get("error").filter(|error| !error.is_null()) {
            self.error = Some(error.clone());
        }
        if dialects::take(self, part) {
            return;
        }
        for choice in part["choices"].as_array().into_iter().flatten() {
            let index = small(&choice["index"]).unwrap_or(0);
            self.choice(index).take(choice);
        }
    }

    fn choice(&mut self, index: usize) -> &mut Choice {
        if self.choices.len() <= index {
            self.choices.resize_with(index + 1, Choice::default);
        }
        &mut self.choices[index]
    }

    /// Where two answers first differ; `None`: they are identical.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.choices.len() != other.choices.len() {
            let (a, b) = (self.choices.len(), other.choices.len());
            return Some(format!("choices: {a} and {b}"));
        }
        for (index, (a, b)) in self.choices.iter().zip(&other.choices).enumerate() {
            if let Some(what) = a.difference(b) {
                return Some(format!("choices[{index}].{what}"));
            }
        }
        (self.error != other.error).then(|| "error: not the same".to_owned())
    }
}

impl Choice {
    fn take(&mut self, choice: &Value) {
        let says = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for said in [&choice["message"], &choice["delta"]] {
            self.content += &says(&said["content"]);
            self.reasoning += &says(&said["reasoning_content"]);
            for (place, call) in said["tool_calls"]
                .as_array()
                .into_iter()
                .flatten()
                .enumerate()
            {
                let index = small(&call["index"]).unwrap_or(place);
                if self.tool_calls.len() <= index {
                    self.tool_calls.resize_with(index + 1, Call::default);
                }
                let known = &mut self.tool_calls[index];
                known.name += &says(&call["function"]["name"]);
                known.arguments += &says(&call["function"]["arguments"]);
            }
            // OpenAI's first way to call.
            let call = &said["function_call"];
            if call.is_object() {
                self.tool_calls.resize_with(1, Call::default);
                self.tool_calls[0].name += &says(&call["name"]);
                self.tool_calls[0].arguments += &says(&call["arguments"]);
            }
        }
        self.content += &says(&choice["text"]);
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
        let scores = &choice["logprobs"];
        for token in scores["content"].as_array().into_iter().flatten() {
            self.logprobs
                .push((says(&token["token"]), token["logprob"].clone()));
        }
        let tokens = scores["tokens"].as_array().into_iter().flatten();
        let values = scores["token_logprobs"].as_array().into_iter().flatten();
        for (token, value) in tokens.zip(values) {
            self.logprobs.push((says(token), value.clone()));
        }
    }

    fn difference(&self, other: &Self) -> Option<String> {
        let texts = [
            ("content", &self.content, &other.content),
            ("reasoning", &self.reasoning, &other.reasoning),
        ];
        for (name, a, b) in texts {
            if let Some(what) = first_difference(a, b) {
                return Some(format!("{name} {what}"));
            }
        }
        if self.tool_calls != other.tool_calls {
            return Some("tool_calls: not the same".to_owned());
        }
        if self.finish_reason != other.finish_reason {
            let (a, b) = (&self.finish_reason, &other.finish_reason);
            return Some(format!("finish_reason: {a:?} and {b:?}"));
        }
        if self.logprobs.len() != other.logprobs.len() {
            let (a, b) = (self.logprobs.len(), other.logprobs.len());
            return Some(format!("logprobs: of {a} and {b} tokens"));
        }
        let mut pairs = self.logprobs.iter().zip(&other.logprobs).enumerate();
        pairs.find(|(_, (a, b))| a != b).map(|(at, (a, b))| {
            format!(
                "logprobs[{at}]: {:?} with {} and {:?} with {}",
                a.0, a.1, b.0, b.1
            )
        })
    }
}

/// The number of one of several, none of which are many.
fn small(index: &Value) -> Option<usize> {
    let index = usize::try_from(index.as_u64()?).ok()?;
    (index < 1024).then_some(index)
}

/// The place of the first difference of two texts, and what stands there in each.
fn first_difference(a: &str, b: &str) -> Option<String> {
    const SHOWN_CHARS: usize = 24;
    if a == b {
        return None;
    }
    let same: usize = a
        .chars()
        .zip(b.chars())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a.len_utf8())
        .sum();
    let rest = |text: &str| -> String {
        let mut shown: String = text[same..].chars().take(SHOWN_CHARS).collect();
        if shown.len() < text.len() - same {
            let _ = write!(shown, "…");
        }
        shown
    };
    Some(format!("from byte {same}: {:?} and {:?}", rest(a), rest(b)))
}

/// A request's body as it is sent to `route` again: with the seed that was used.
pub fn with_seed(mut request: Map<String, Value>, route: &str, seed: u32) -> Map<String, Value> {
    if route.starts_with("/api/") {
        // Ollama's stand apart.
        let options = request.entry("options").or_insert(Value::Null);
        if options.is_null() {
            *options = Map::new().into();
        }
        if let Some(options) = options.as_object_mut() {
            let given = std::mem::take(options);
            *options = with_seed(given, "", seed);
        }
        return request;
    }
    if request.get("seed").is_none_or(Value::is_null) {
        request.insert("seed".to_owned(), seed.into());
    }
    request
}

/// The same with the adapters' scales that were used, which may be others by then; dialects that have no word for them are
/// left as they are.
pub fn with_lora(
    mut request: Map<String, Value>,
    route: &str,
    lora: Vec<Value>,
) -> Map<String, Value> {
    let silent = ["/api/", "/v1/messages", "/v1/responses"]
        .iter()
        .any(|start| route.starts_with(start));
    let says = |value: &Value| value.as_array().is_some_and(|list| !list.is_empty());
    if !silent && !lora.is_empty() && !request.get("lora").is_some_and(says) {
        request.insert("lora".to_owned(), lora.into());
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn whole() -> Answer {
        let body = json!({"id": "a", "created": 1, "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Hello world", "reasoning_content": "Hm",
                "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": "{}"}}]},
            "logprobs": {"content": [{"token": "Hello", "logprob": -0.5}, {"token": " world", "logprob": -1.25}]},
        }]});
        Answer::read(&body.to_string()).unwrap()
    }

    #[test]
    fn a_stream_says_the_same_as_the_whole_answer() {
        let events = [
            json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}),
            json!({"choices": [{"index": 0, "delta": {"reasoning_content": "Hm"}}]}),
            json!({"choices": [{"index": 0, "delta": {"content": "Hello"}, "logprobs": {"content": [{"token": "Hello", "logprob": -0.5}]}}]}),
            json!({"choices": [{"index": 0, "delta": {"content": " world"}, "logprobs": {"content": [{"token": " world", "logprob": -1.25}]}}]}),
            json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{"}}]}}]}),
            json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}}]}),
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
        ];
        let lines: Vec<_> = events
            .iter()
            .map(|event| format!("data: {event}\n\n"))
            .collect();
        let body = lines.concat();
        let streamed =
            Answer::read(&(": ping\n\n".to_owned() + &body + "data: [DONE]\n\n")).unwrap();
        assert_eq!(streamed, whole());
        assert_eq!(streamed.difference(&whole()), None);
    }

    #[test]
    fn the_first_difference_is_named_with_its_place() {
        let mut other = whole();
        other.choices[0].content = "Hello there".to_owned();
        let said = whole().difference(&other);
        let expected = r#"choices[0].content from byte 6: "world" and "there""#;
        assert_eq!(said.as_deref(), Some(expected));
        let mut other = whole();
        other.choices[0].logprobs[1].1 = json!(-1.250_001);
        let said = whole().difference(&other).unwrap();
        assert_eq!(
            said,
            r#"choices[0].logprobs[1]: " world" with -1.25 and " world" with -1.250001"#
        );
    }

    #[test]
    fn a_seed_is_written_down_unless_the_client_gave_one() {
        let body = |text| match serde_json::from_str(text).unwrap() {
            Value::Object(body) => body,
            _ => unreachable!(),
        };
        let seed = |text| with_seed(body(text), "/v1/completions", 7)["seed"].clone();
        assert_eq!(seed("{}"), 7);
        assert_eq!(seed(r#"{"seed":null}"#), 7);
        assert_eq!(seed(r#"{"seed":3}"#), 3);
        let seed = |text| with_seed(body(text), "/api/chat", 7)["options"]["seed"].clone();
        assert_eq!(seed("{}"), 7);
        assert_eq!(seed(r#"{"options":{"top_k":1}}"#), 7);
        assert_eq!(seed(r#"{"options":{"seed":3}}"#), 3);
    }

    #[test]
    fn the_scales_that_held_are_written_down_unless_the_client_gave_some() {
        let body = |text| match serde_json::from_str(text).unwrap() {
            Value::Object(body) => body,
            _ => unreachable!(),
        };
        let held = vec![json!({"id": 0, "scale": 0.5})];
        assert_eq!(
            with_lora(body(r#"{"lora":[]}"#), "/completion", held.clone())["lora"],
            json!(held)
        );
        let given = with_lora(
            body(r#"{"lora":[{"id":0,"scale":2}]}"#),
            "/completion",
            held,
        );
        assert_eq!(given["lora"][0]["scale"], 2);
        assert!(with_lora(body("{}"), "/completion", Vec::new()).is_empty());
    }
}
