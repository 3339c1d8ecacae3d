//! Reads server-sent events and what a completion chunk says.

use std::io::{self, BufRead};

use serde_json::Value;

/// The `data` of each event, until `[DONE]` or the end of the stream.
pub(super) struct Events<R> {
    from: R,
    line: String,
}

impl<R: BufRead> Events<R> {
    pub(super) fn new(from: R) -> Self {
        Self {
            from,
            line: String::new(),
        }
    }

    /// `None` after `[DONE]`. A stream that ends without it is an error: the answer may be cut.
    fn read(&mut self) -> io::Result<Option<String>> {
        let mut data = None;
        loop {
            self.line.clear();
            if self.from.read_line(&mut self.line)? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the stream ended without [DONE]",
                ));
            }
            let line = self.line.trim_end_matches(['\r', '\n']);
            if let Some(value) = line.strip_prefix("data:") {
                let value = value.strip_prefix(' ').unwrap_or(value);
                let data: &mut String = data.get_or_insert_default();
                if !data.is_empty() {
                    data.push('\n');
                }
                data.push_str(value);
            } else if line.is_empty()
                && let Some(data) = data.take()
            {
                return Ok((data != "[DONE]").then_some(data));
            }
            // Comments (keep-alives) and other fields carry nothing that is measured.
        }
    }
}

impl<R: BufRead> Iterator for Events<R> {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// What one chunk of a completion brings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Whether it carries generated text, reasoning or a tool call.
    pub(super) text: bool,
    /// The generated text proper, which a next turn of the conversation repeats.
    pub(super) content: String,
    /// Whether generation ended with it.
    pub(super) finished: bool,
    pub(super) usage: Option<Usage>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the names are those of the wire")]
pub(super) struct Usage {
    pub(super) prompt_tokens: u32,
    pub(super) completion_tokens: u32,
    pub(super) cached_tokens: u32,
}

/// Reads a chunk of `/v1/completions` or `/v1/chat/completions`; `Err`: the server's error, or no JSON.
pub(super) fn chunk(data: &str) -> Result<Chunk, String> {
    let chunk: Value = serde_json::from_str(data)
        .map_err(|e| format!("an event is no JSON ({e}): {}", first_line(data)))?;
    if chunk.get("error").is_some_and(|error| !error.is_null()) {
        return Err(format!("the stream says: {}", first_line(data)));
    }
    let choice = &chunk["choices"][0];
    let delta = &choice["delta"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let content = text(&choice["text"]) + &text(&delta["content"]);
    Ok(Chunk {
        text: !content.is_empty()
            || !text(&delta["reasoning_content"]).is_empty()
            || delta["tool_calls"].is_array(),
        content,
        finished: choice["finish_reason"].is_string(),
        usage: chunk["usage"].is_object().then(|| usage(&chunk["usage"])),
    })
}

/// What a body says, in one line of bearable length: the message of an API error, else its first line.
pub(super) fn first_line(body: &str) -> String {
    const MOST_CHARS: usize = 300;
    let error: Option<Value> = serde_json::from_str(body).ok();
    let message = error.as_ref().and_then(|body| {
        let error = &body["error"];
        error["message"].as_str().or(error.as_str())
    });
    let text = message.unwrap_or(body);
    let line = text.lines().find(|line| !line.trim().is_empty());
    let line = line.unwrap_or("(no text)").trim();
    match line.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line.to_owned(),
    }
}

fn usage(usage: &Value) -> Usage {
    let count = |value: &Value| u32::try_from(value.as_u64().unwrap_or(0)).unwrap_or(u32::MAX);
    Usage {
        prompt_tokens: count(&usage["prompt_tokens"]),
        completion_tokens: count(&usage["completion_tokens"]),
        cached_tokens: count(&usage["prompt_tokens_details"]["cached_tokens"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Vec<io::Result<String>> {
        Events::new(text.as_bytes()).collect()
    }

    #[test]
    fn events_end_at_done_and_comments_are_skipped() {
        let read =
            events(": ping\n\ndata: 1\n\nevent: x\ndata:2\r\n\r\ndata: [DONE]\n\ndata: 3\n\n");
        let read: Vec<String> = read.into_iter().take(2).map(Result::unwrap).collect();
        assert_eq!(read, ["1", "2"]);
        let mut stream = Events::new("data: [DONE]\n\n".as_bytes());
        assert!(stream.next().is_none());
    }

    #[test]
    fn data_over_several_lines_is_one_event() {
        let read = Events::new("data: a\ndata: b\n\n".as_bytes()).next();
        assert_eq!(read.unwrap().unwrap(), "a\nb");
    }

    #[test]
    fn a_stream_cut_before_done_is_an_error() {
        let read = Events::new("data: 1\n\n".as_bytes()).nth(1).unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_role_alone_is_not_the_first_token() {
        let role =
            r#"{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
        assert_eq!(chunk(role).unwrap(), Chunk::default());
        let text = r#"{"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}"#;
        assert!(chunk(text).unwrap().text);
        let legacy = r#"{"choices":[{"text":"Hi","finish_reason":"length"}]}"#;
        let legacy = chunk(legacy).unwrap();
        assert!(legacy.text && legacy.finished);
    }

    #[test]
    fn usage_is_read_from_the_chunk_without_choices() {
        let last = r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,
            "prompt_tokens_details":{"cached_tokens":2}}}"#;
        let expected = Usage {
            prompt_tokens: 7,
            completion_tokens: 3,
            cached_tokens: 2,
        };
        assert_eq!(chunk(last).unwrap().usage, Some(expected));
    }

    #[test]
    fn an_error_in_the_stream_keeps_its_words() {
        let error = chunk(r#"{"error":{"message":"no"}}"#).unwrap_err();
        assert_eq!(error, "the stream says: no");
        assert!(chunk("not json").unwrap_err().ends_with(": not json"));
    }

    #[test]
    fn a_body_is_told_by_its_message_or_its_first_line_and_never_at_length() {
        let pretty = "{\n  \"error\": {\n    \"message\": \"too long\"\n  }\n}";
        assert_eq!(first_line(pretty), "too long");
        assert_eq!(first_line("\r\n<html>\r\n<body>"), "<html>");
        assert_eq!(first_line(""), "(no text)");
        assert_eq!(first_line(&"ü".repeat(5000)).chars().count(), 302);
    }
}
