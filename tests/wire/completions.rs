//! `POST /v1/completions`, whole and as a stream.

use serde_json::{Value, json};

use crate::support::{Server, events, text, value};

const PATH: &str = "/v1/completions";

#[tokio::test]
async fn a_whole_completion() {
    let server = Server::ready();
    insta::assert_snapshot!(server.show_post(PATH, json!({"prompt": "abc\n"})).await, @r#"
    200 OK
    content-type: application/json

    {"id":"cmpl-ID","object":"text_completion","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"text":"abc","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":4,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"timings":"TIMES"}
    "#);
}

#[tokio::test]
async fn a_stream_with_usage() {
    let server = Server::ready();
    let body = json!({"prompt": "é\n", "stream": true, "stream_options": {"include_usage": true}});
    insta::assert_snapshot!(server.show_post(PATH, body).await, @r#"
    200 OK
    content-type: text/event-stream
    cache-control: no-cache
    x-accel-buffering: no

    data: {"id":"cmpl-ID","object":"text_completion","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"text":"é","logprobs":null,"finish_reason":null}],"usage":null}

    data: {"id":"cmpl-ID","object":"text_completion","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}],"timings":"TIMES","usage":null}

    data: {"id":"cmpl-ID","object":"text_completion","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":3,"total_tokens":6,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}

    data: [DONE]
    "#);
}

#[tokio::test]
async fn logprobs_come_in_columns() {
    let server = Server::ready();
    let body = json!({"prompt": "aé\n", "logprobs": 2, "max_tokens": 3});
    insta::assert_snapshot!(server.show_post(PATH, body).await, @r#"
    200 OK
    content-type: application/json

    {"id":"cmpl-ID","object":"text_completion","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"text":"aé","logprobs":{"tokens":["a","�","�"],"token_logprobs":[-0.5,-0.5,-0.5],"top_logprobs":[{"a":-0.5,"<eos>":-1.5},{"�":-0.5,"<eos>":-1.5},{"�":-0.5,"<eos>":-1.5}],"text_offset":[0,1,2]},"finish_reason":"length"}],"usage":{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"timings":"TIMES"}
    "#);
}

#[tokio::test]
async fn prompts_may_be_tokens_and_several() {
    let server = Server::ready();
    let texts = async |prompt: Value, n: u32| -> Vec<String> {
        let answer = value(server.post(PATH, json!({"prompt": prompt, "n": n})).await).await;
        let choices = answer["choices"].as_array().unwrap().iter().enumerate();
        choices
            .map(|(index, choice)| {
                assert_eq!(choice["index"], index);
                choice["text"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    assert_eq!(texts(json!([104, 105, 10]), 1).await, ["hi"]);
    assert_eq!(texts(json!(["hi\n"]), 1).await, ["hi"]);
    assert_eq!(
        texts(json!([[104, 105, 10], "ho\n"]), 2).await,
        ["hi", "hi", "ho", "ho"]
    );
}

#[tokio::test]
async fn an_echo_begins_with_the_prompt() {
    let server = Server::ready();
    let body = json!({"prompt": "ab\n", "echo": true});
    let answer = value(server.post(PATH, body).await).await;
    assert_eq!(answer["choices"][0]["text"], "ab\nab");
    let body = json!({"prompt": [97, 98, 10], "echo": true, "stream": true});
    let stream = text(server.post(PATH, body).await).await;
    let text: String = events(&stream)
        .iter()
        .filter_map(|event| event["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(text, "ab\nab");
}

#[tokio::test]
async fn each_bad_parameter_is_named() {
    let server = Server::ready();
    let mut lines = Vec::new();
    for body in [
        json!({}),
        json!({"prompt": ""}),
        json!({"prompt": []}),
        json!({"prompt": [1, 258]}),
        json!({"prompt": [1, "a"]}),
        json!({"prompt": [["a"]]}),
        json!({"prompt": {"a": 1}}),
        json!({"prompt": vec!["a"; 33]}),
        json!({"prompt": vec!["a"; 5], "n": 8}),
        json!({"prompt": "a", "suffix": "b"}),
        json!({"prompt": "a", "best_of": 2}),
        json!({"prompt": "a", "echo": true, "logprobs": 0}),
        json!({"prompt": "a", "logprobs": 21}),
        json!({"prompt": "a", "json_schema": []}),
        json!({"prompt": "a", "response_format": {"type": "xml"}}),
        json!({"prompt": "a", "grammar": 1}),
        json!({"prompt": "x".repeat(256)}),
    ] {
        let response = server.post(PATH, body).await;
        let status = response.status().as_u16();
        let error = &value(response).await["error"];
        let (param, message) = (&error["param"], error["message"].as_str().unwrap());
        lines.push(format!("{status} {param} | {message}"));
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    400 "prompt" | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, but it is missing
    400 "prompt" | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, got ""
    400 "prompt" | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, got an array of 0
    400 "prompt" | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, got an array of 2
    400 "prompt" | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, got an array of 2
    400 "prompt" | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, got an array of 1
    400 "prompt" | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, got an object
    400 "prompt" | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, got an array of 33
    400 "prompt" | prompt: expected at most 32 answers in all, prompts times n, got an array of 5
    400 null | the model served here cannot fill a gap: its vocabulary has no token for prefix, suffix, middle
    400 "best_of" | best_of: expected 1 or the value of n, got 2
    400 "echo" | echo: this server has no log-probabilities of prompts; leave out echo or logprobs
    400 "logprobs" | logprobs: expected an integer from 0 to 20, got 21
    400 "json_schema" | json_schema: expected a JSON schema, an object
    400 "response_format.type" | response_format.type: expected "text", "json_object" or "json_schema", got "xml"
    400 "grammar" | grammar: expected a string, got 1
    400 "prompt" | This model's maximum context length is 256 tokens. However, your prompt resulted in 256 tokens. Please reduce the length of the prompt.
    "#);
}
