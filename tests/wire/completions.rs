//! `POST /v1/completions`, whole and as a stream.

use serde_json::{Value, json};

use crate::support::{Server, events, text, value};

const PATH: &str = "/v1/completions";

#[tokio::test]
async fn a_whole_completion() {
    let server = Server::ready();
    insta::assert_snapshot!(server.show_post(PATH, json!({"prompt": "abc\n"})).await, @"");
}

#[tokio::test]
async fn a_stream_with_usage() {
    let server = Server::ready();
    let body = json!({"prompt": "é\n", "stream": true, "stream_options": {"include_usage": true}});
    insta::assert_snapshot!(server.show_post(PATH, body).await, @"");
}

#[tokio::test]
async fn logprobs_come_in_columns() {
    let server = Server::ready();
    let body = json!({"prompt": "aé\n", "logprobs": 2, "max_tokens": 3});
    insta::assert_snapshot!(server.show_post(PATH, body).await, @"");
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
    assert_eq!(texts(json!([[104, 105, 10], "ho\n"]), 2).await, ["hi", "hi", "ho", "ho"]);
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
        json!({"prompt": "a", "json_schema": {}}),
        json!({"prompt": "a", "response_format": {"type": "json_object"}}),
        json!({"prompt": "a", "grammar": 1}),
        json!({"prompt": "x".repeat(256)}),
    ] {
        let response = server.post(PATH, body).await;
        let status = response.status().as_u16();
        let error = &value(response).await["error"];
        let (param, message) = (&error["param"], error["message"].as_str().unwrap());
        lines.push(format!("{status} {param} | {message}"));
    }
    insta::assert_snapshot!(lines.join("\n"), @"");
}
