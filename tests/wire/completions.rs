//! `POST /v1/completions`, whole and as a stream.

use serde_json::{Value, json};

use crate::support::{Server, events, refusals, text, value};

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

    {"id":"cmpl-ID","object":"text_completion","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"text":"aé","logprobs":{"tokens":["a","bytes:\\xc3","bytes:\\xa9"],"token_logprobs":[-0.5,-0.5,-0.5],"top_logprobs":[{"a":-0.5,"<eos>":-1.5},{"bytes:\\xc3":-0.5,"<eos>":-1.5},{"bytes:\\xa9":-0.5,"<eos>":-1.5}],"text_offset":[0,1,1]},"finish_reason":"length"}],"usage":{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"timings":"TIMES"}
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

/// The columns of every choice's log-probabilities.
fn columns(answer: &Value) -> Vec<Value> {
    let choices = answer["choices"].as_array().unwrap().iter();
    choices.map(|choice| choice["logprobs"].clone()).collect()
}

#[tokio::test]
async fn an_echo_tells_how_likely_the_prompt_was() {
    let server = Server::ready();
    // Foreseen is a line break, and after it the line again.
    let body = json!({"prompt": "aé\na", "echo": true, "logprobs": 1, "max_tokens": 0});
    let answer = value(server.post(PATH, body).await).await;
    assert_eq!(answer["choices"][0]["text"], "aé\na");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    insta::assert_snapshot!(columns(&answer)[0], @r#"{"tokens":["a","bytes:\\xc3","bytes:\\xa9","\n","a"],"token_logprobs":[null,-2.5,-2.5,-0.5,-0.5],"top_logprobs":[null,{"\n":-0.5,"bytes:\\xc3":-2.5},{"\n":-0.5,"bytes:\\xa9":-2.5},{"\n":-0.5},{"a":-0.5}],"text_offset":[0,1,1,2,3]}"#);
    assert_eq!(answer["usage"]["completion_tokens"], 0);
}

#[tokio::test]
async fn every_generated_token_has_its_column_in_an_echo_also_the_last() {
    let server = Server::ready();
    let prompt = json!([[97, 98, 10, 97, 98], [97, 98, 10, 97]]);
    let body = json!({"prompt": prompt, "echo": true, "logprobs": 1, "max_tokens": 1});
    let answer = value(server.post(PATH, body.clone()).await).await;
    insta::assert_snapshot!(columns(&answer)[0], @r#"{"tokens":["a","b","\n","a","b","<eos>"],"token_logprobs":[null,-2.5,-0.5,-0.5,-0.5,-0.5],"top_logprobs":[null,{"\n":-0.5,"b":-2.5},{"\n":-0.5},{"a":-0.5},{"b":-0.5},{"<eos>":-0.5}],"text_offset":[0,1,2,3,4,5]}"#);
    insta::assert_snapshot!(columns(&answer)[1], @r#"{"tokens":["a","b","\n","a","b"],"token_logprobs":[null,-2.5,-0.5,-0.5,-0.5],"top_logprobs":[null,{"\n":-0.5,"b":-2.5},{"\n":-0.5},{"a":-0.5},{"b":-0.5}],"text_offset":[0,1,2,3,4]}"#);
    // A stream says the same.
    let mut streamed = body;
    streamed["stream"] = true.into();
    let stream = text(server.post(PATH, streamed).await).await;
    for (index, whole) in columns(&answer).iter().enumerate() {
        for (name, column) in whole.as_object().unwrap() {
            let chunks = events(&stream);
            let of_choice = chunks
                .iter()
                .map(|event| &event["choices"][0])
                .filter(|choice| choice["index"] == index);
            let joined: Vec<_> = of_choice
                .filter_map(|choice| choice["logprobs"][name].as_array())
                .flatten()
                .cloned()
                .collect();
            assert_eq!(Value::from(joined), *column, "{name}");
        }
    }
}

#[tokio::test]
async fn a_long_prompt_is_scored_in_pieces_and_beside_others() {
    let server = Server::ready();
    // More rows than a step has outputs.
    let line = "0123456789".repeat(5);
    let prompt = format!("{line}\n{line}\n{line}");
    let body = json!({"prompt": prompt, "echo": true, "logprobs": 0, "max_tokens": 0});
    let other = json!({"prompt": "abcdefghijklmnopqrstuvwxyz\n"});
    let (answer, beside) = tokio::join!(server.post(PATH, body.clone()), server.post(PATH, other));
    assert_eq!(
        value(beside).await["choices"][0]["text"],
        "abcdefghijklmnopqrstuvwxyz"
    );
    let answer = value(answer).await;
    let logprobs = columns(&answer)[0]["token_logprobs"].clone();
    let logprobs = logprobs.as_array().unwrap();
    assert_eq!(logprobs.len(), prompt.len());
    // Nothing of the second and third line comes as a surprise.
    assert!(logprobs[1..50].iter().all(|logprob| *logprob == -2.5));
    assert!(logprobs[50..101].iter().all(|logprob| *logprob == -0.5));
    assert_eq!(logprobs[101], -2.5, "where the answer would have ended");
    assert!(logprobs[102..].iter().all(|logprob| *logprob == -0.5));
    // What was computed so is nobody's prefix, and its own cannot be reused.
    let again = value(server.post(PATH, body).await).await;
    assert_eq!(again["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(columns(&again), columns(&answer));
}

#[tokio::test]
async fn the_best_of_several_are_given_and_all_are_counted() {
    let server = Server::ready();
    let body = json!({"prompt": ["ab\n", "c\n"], "best_of": 3, "n": 2});
    let answer = value(server.post(PATH, body).await).await;
    let texts: Vec<_> = answer["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| (choice["index"].as_u64(), choice["text"].as_str()))
        .collect();
    let given = ["ab", "ab", "c", "c"].map(Some);
    assert_eq!(texts, (0..).map(Some).zip(given).collect::<Vec<_>>());
    assert_eq!(columns(&answer), vec![Value::Null; 4]);
    // Three answers of 3 tokens and three of 2, the ends included.
    assert_eq!(answer["usage"]["completion_tokens"], 15);
    assert_eq!(answer["usage"]["prompt_tokens"], 5);
    let body = json!({"prompt": "ab\n", "best_of": 3, "logprobs": 0});
    let answer = value(server.post(PATH, body).await).await;
    assert_eq!(columns(&answer)[0]["token_logprobs"], json!([-0.5, -0.5]));
}

#[tokio::test]
async fn each_bad_parameter_is_named() {
    let server = Server::ready();
    let cases = [
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
        json!({"prompt": "a", "best_of": 2, "n": 3}),
        json!({"prompt": "a", "best_of": 21}),
        json!({"prompt": ["a", "b"], "best_of": 20}),
        json!({"prompt": "a", "best_of": 2, "stream": true}),
        json!({"prompt": "a", "max_tokens": 0}),
        json!({"prompt": "a", "echo": true, "logprobs": 0, "suffix": "b"}),
        json!({"prompt": vec!["x".repeat(30_000); 2], "echo": true, "logprobs": 20}),
        json!({"prompt": "a", "min_tokens": 9, "max_tokens": 8}),
        json!({"prompt": "a", "min_tokens": -1}),
        json!({"prompt": "a", "logprobs": 21}),
        json!({"prompt": "a", "json_schema": []}),
        json!({"prompt": "a", "response_format": {"type": "xml"}}),
        json!({"prompt": "a", "grammar": 1}),
        json!({"prompt": "x".repeat(256)}),
    ];
    let told = refusals(async |body| server.post(PATH, body).await, cases).await;
    insta::assert_snapshot!(told, @r#"
    400 prompt invalid_value | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, but it is missing
    400 prompt invalid_value | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, got ""
    400 prompt invalid_value | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, got an array of 0
    400 prompt invalid_value | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, got an array of 2
    400 prompt invalid_value | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, got an array of 2
    400 prompt invalid_value | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, got an array of 1
    400 prompt invalid_value | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, got an object
    400 prompt invalid_value | prompt: expected a string, an array of token ids below 258, or an array of at most 32 such prompts, none of them empty, got an array of 33
    400 prompt invalid_value | prompt: expected at most 32 answers in all, prompts times n, got an array of 5
    400 unsupported_by_model | the model served here cannot fill a gap: its vocabulary has no token for prefix, suffix, middle
    400 best_of invalid_value | best_of: expected at least n, so 3 to 20, got 2
    400 best_of invalid_value | best_of: expected an integer from 0 to 20, got 21
    400 prompt invalid_value | prompt: expected at most 32 answers in all, prompts times n, got an array of 2
    400 best_of invalid_value | best_of: not together with stream, since the best is known at the end
    400 max_tokens invalid_value | max_tokens: expected an integer of at least 1, or -1 for no limit, got 0
    400 echo invalid_value | echo: not together with suffix and logprobs
    400 echo invalid_value | echo: 60000 tokens of prompts with 21 log-probabilities each, n times, are more than 1048576; send fewer prompts at once
    400 min_tokens invalid_value | min_tokens: expected an integer from 0 to 8, got 9
    400 min_tokens invalid_value | min_tokens: expected an integer from 0 to 256, got -1
    400 logprobs invalid_value | logprobs: expected an integer from 0 to 20, got 21
    400 json_schema invalid_value | json_schema: expected a JSON schema, an object
    400 response_format.type invalid_value | response_format.type: expected "text", "json_object" or "json_schema", got "xml"
    400 grammar invalid_value | grammar: expected a string, got 1
    400 prompt context_length_exceeded | This model's maximum context length is 256 tokens. However, your prompt resulted in 256 tokens. Please reduce the length of the prompt.
    "#);
}
