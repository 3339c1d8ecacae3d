//! Answers of the other dialects, whole or in parts, as choices: what they call things, and nothing else.

use serde_json::Value;

use super::{Answer, Call, Choice};

/// Takes a part of an answer in whatever dialect it is; `false`: it is none of these.
pub(super) fn take(answer: &mut Answer, part: &Value) -> bool {
    match part["type"].as_str() {
        Some("message") if part["content"].is_array() => {
            for (at, block) in items(&part["content"]) {
                open_block(answer, at, block);
            }
            answer.only().end(&part["stop_reason"]);
        }
        Some("content_block_start") => open_block(answer, index(part), &part["content_block"]),
        Some("content_block_delta") => block_delta(answer, index(part), &part["delta"]),
        Some("message_delta") => answer.only().end(&part["delta"]["stop_reason"]),
        Some("response.completed" | "response.incomplete" | "response.failed") => {
            response(answer, &part["response"]);
        }
        Some(_) if part.get("sequence_number").is_some() => {} // said once more at the end
        _ if part["object"] == "response" => response(answer, part),
        _ if part["done"].is_boolean() => ollama(answer, part),
        _ if part["stop"].is_boolean() => native(answer, part),
        _ => return false,
    }
    true
}

/// A block of Anthropic's; the number of a call is its block's.
fn open_block(answer: &mut Answer, at: usize, block: &Value) {
    let choice = answer.only();
    choice.content += says(&block["text"]);
    choice.reasoning += says(&block["thinking"]);
    if block["type"] == "tool_use" {
        let call = choice.call(at);
        call.name += says(&block["name"]);
        // In a stream it opens empty and comes later, as text.
        if block["input"]
            .as_object()
            .is_some_and(|input| !input.is_empty())
        {
            call.arguments += &block["input"].to_string();
        }
    }
}

fn block_delta(answer: &mut Answer, at: usize, delta: &Value) {
    let choice = answer.only();
    choice.content += says(&delta["text"]);
    choice.reasoning += says(&delta["thinking"]);
    if let Some(arguments) = delta["partial_json"].as_str() {
        choice.call(at).arguments += arguments;
    }
}

fn response(answer: &mut Answer, response: &Value) {
    if let Some(error) = response.get("error").filter(|error| !error.is_null()) {
        answer.error = Some(error.clone());
    }
    let choice = answer.only();
    for (at, item) in items(&response["output"]) {
        match item["type"].as_str() {
            Some("reasoning") => {
                let texts = items(&item["summary"]).chain(items(&item["content"]));
                choice
                    .reasoning
                    .extend(texts.map(|(_, part)| says(&part["text"])));
            }
            Some("function_call" | "custom_tool_call") => {
                let call = choice.call(at);
                call.name += says(&item["name"]);
                call.arguments += says(&item["arguments"]);
                call.arguments += says(&item["input"]);
            }
            _ => {
                for (_, part) in items(&item["content"]) {
                    choice.content += says(&part["text"]);
                    choice.score(&part["logprobs"]);
                }
            }
        }
    }
    let why = &response["incomplete_details"]["reason"];
    choice.end(if why.is_null() {
        &response["status"]
    } else {
        why
    });
}

fn ollama(answer: &mut Answer, part: &Value) {
    let choice = answer.only();
    choice.content += says(&part["response"]);
    choice.reasoning += says(&part["thinking"]);
    let message = &part["message"];
    choice.content += says(&message["content"]);
    choice.reasoning += says(&message["thinking"]);
    for (_, call) in items(&message["tool_calls"]) {
        choice.tool_calls.push(Call {
            name: says(&call["function"]["name"]).to_owned(),
            arguments: call["function"]["arguments"].to_string(),
        });
    }
    choice.score(&part["logprobs"]);
    choice.end(&part["done_reason"]);
}

fn native(answer: &mut Answer, part: &Value) {
    let choice = answer.choice(index(part));
    choice.content += says(&part["content"]);
    choice.score(&part["completion_probabilities"]);
    if part["stop"] == true {
        choice.end(&part["stop_type"]);
    }
}

impl Answer {
    fn only(&mut self) -> &mut Choice {
        self.choice(0)
    }
}

impl Choice {
    fn call(&mut self, at: usize) -> &mut Call {
        if self.tool_calls.len() <= at {
            self.tool_calls.resize_with(at + 1, Call::default);
        }
        &mut self.tool_calls[at]
    }

    fn end(&mut self, reason: &Value) {
        if let Some(reason) = reason.as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
    }

    fn score(&mut self, tokens: &Value) {
        for (_, token) in items(tokens) {
            let (text, logprob) = (says(&token["token"]), token["logprob"].clone());
            self.logprobs.push((text.to_owned(), logprob));
        }
    }
}

fn says(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Which of several a part belongs to.
fn index(part: &Value) -> usize {
    super::small(&part["index"]).unwrap_or(0)
}

fn items(list: &Value) -> impl Iterator<Item = (usize, &Value)> {
    list.as_array().into_iter().flatten().enumerate()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(parts: &[Value]) -> Answer {
        let lines: Vec<_> = parts
            .iter()
            .map(|part| format!("data: {part}\n\n"))
            .collect();
        Answer::read(&lines.concat()).unwrap()
    }

    fn same(whole: &Value, parts: &[Value]) -> Answer {
        let whole = Answer::read(&whole.to_string()).unwrap();
        assert_eq!(read(parts), whole);
        assert_ne!(whole.choices, []);
        whole
    }

    #[test]
    fn anthropics_stream_says_what_its_message_says() {
        let whole = json!({"type": "message", "stop_reason": "tool_use", "content": [
            {"type": "thinking", "thinking": "Hm"},
            {"type": "text", "text": "Hello"},
            {"type": "tool_use", "name": "f", "input": {"a": 1}},
        ]});
        let answer = same(
            &whole,
            &[
                json!({"type": "message_start", "message": {"content": []}}),
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
                json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm"}}),
                json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
                json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hello"}}),
                json!({"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "name": "f", "input": {}}}),
                json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{\"a\""}}),
                json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ":1}"}}),
                json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}),
                json!({"type": "message_stop"}),
            ],
        );
        assert_eq!(answer.choices[0].tool_calls[2].arguments, "{\"a\":1}");
    }

    #[test]
    fn a_response_is_read_from_its_last_event() {
        let whole = json!({"object": "response", "status": "completed", "output": [
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
            {"type": "message", "content": [{"type": "output_text", "text": "Hello",
                "logprobs": [{"token": "Hello", "logprob": -0.5}]}]},
            {"type": "function_call", "name": "f", "arguments": "{}"},
        ]});
        let answer = same(
            &whole,
            &[
                json!({"type": "response.output_text.delta", "sequence_number": 4, "delta": "Hello"}),
                json!({"type": "response.completed", "sequence_number": 9, "response": whole}),
            ],
        );
        assert_eq!(answer.choices[0].content, "Hello");
    }

    #[test]
    fn ollamas_lines_and_llama_servers_events_are_read() {
        let lines = [
            json!({"message": {"content": "Hel", "thinking": "Hm"}, "done": false}),
            json!({"message": {"content": "lo", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}, "done": false}),
            json!({"message": {"content": ""}, "done": true, "done_reason": "stop"}),
        ];
        let lines: Vec<_> = lines.iter().map(|line| format!("{line}\n")).collect();
        let answer = Answer::read(&lines.concat()).unwrap();
        let choice = &answer.choices[0];
        assert_eq!(
            (choice.content.as_str(), choice.reasoning.as_str()),
            ("Hello", "Hm")
        );
        assert_eq!(choice.finish_reason.as_deref(), Some("stop"));
        assert_eq!(choice.tool_calls[0].arguments, "{\"a\":1}");
        let whole = json!([
            {"index": 0, "content": "Hello", "stop": true, "stop_type": "eos"},
            {"index": 1, "content": "Ho", "stop": true, "stop_type": "limit"},
        ]);
        same(
            &whole,
            &[
                json!({"index": 0, "content": "Hel", "stop": false}),
                json!({"index": 1, "content": "Ho", "stop": false}),
                json!({"index": 0, "content": "lo", "stop": false}),
                json!({"index": 0, "content": "", "stop": true, "stop_type": "eos"}),
                json!({"index": 1, "content": "", "stop": true, "stop_type": "limit"}),
            ],
        );
    }
}
