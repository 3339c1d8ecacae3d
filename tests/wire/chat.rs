//! `POST /v1/chat/completions` when all goes well, and its parameters when it does not.

use axum::http::StatusCode;
use llm_server::engine::fake::Fake;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{
    CONTEXT, Server, Setup, chat_body, events, key, post, refusals, show, text, value,
};

#[tokio::test]
async fn a_whole_answer() {
    let server = Server::ready();
    insta::assert_snapshot!(show(server.chat("Hé!", json!({})).await).await, @r#"
    200 OK
    content-type: application/json

    {"id":"chatcmpl-ID","object":"chat.completion","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"message":{"role":"assistant","content":"Hé!","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":5,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"timings":"TIMES"}
    "#);
}

#[tokio::test]
async fn a_stream_without_usage() {
    let server = Server::ready();
    let more = json!({"stream": true});
    insta::assert_snapshot!(show(server.chat("Hé", more).await).await, @r#"
    200 OK
    content-type: text/event-stream
    cache-control: no-cache
    x-accel-buffering: no

    data: {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"content":"H"},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"content":"é"},"logprobs":null,"finish_reason":null}]}

    data: {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"timings":"TIMES"}

    data: [DONE]
    "#);
}

#[tokio::test]
async fn a_stream_with_usage_at_its_end() {
    let server = Server::ready();
    let more = json!({"stream": true, "stream_options": {"include_usage": true}});
    insta::assert_snapshot!(show(server.chat("a", more).await).await, @r#"
    200 OK
    content-type: text/event-stream
    cache-control: no-cache
    x-accel-buffering: no

    data: {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

    data: {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}],"usage":null}

    data: {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"timings":"TIMES","usage":null}

    data: {"id":"chatcmpl-ID","object":"chat.completion.chunk","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[],"usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}

    data: [DONE]
    "#);
}

#[tokio::test]
async fn continuous_usage_counts_up_on_every_chunk() {
    let server = Server::ready();
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let more = json!({"stream": true, "stream_options": options});
    let stream = text(server.chat("abc", more).await).await;
    let counts: Vec<_> = events(&stream)
        .iter()
        .map(|event| event["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert!(counts.is_sorted());
    assert_eq!(
        counts.last(),
        Some(&4),
        "three bytes and the end of the answer"
    );
    assert!(counts.contains(&2));
}

#[tokio::test]
async fn the_last_chunk_carries_llama_servers_timings() {
    let server = Server::ready();
    let answer = value(server.chat("abc", json!({})).await).await;
    let timings = answer["timings"].as_object().unwrap();
    assert_eq!(timings["prompt_n"], 4);
    assert_eq!(timings["predicted_n"], 4);
    let names = [
        "cache_n",
        "prompt_ms",
        "prompt_per_second",
        "predicted_ms",
        "predicted_per_second",
    ];
    for name in names {
        assert!(timings[name].is_number(), "{name}");
    }
}

#[tokio::test]
async fn a_character_cut_short_has_its_logprobs_too() {
    let server = Server::ready();
    let body = |stream| json!({"logprobs": true, "max_tokens": 2, "stream": stream});
    let whole = value(server.chat("aé", body(false)).await).await;
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"]["content"], "a\u{FFFD}");
    let bytes = |logprobs: &Value| -> Vec<Value> {
        let tokens = logprobs["content"].as_array().into_iter().flatten();
        tokens.map(|token| token["bytes"].clone()).collect()
    };
    assert_eq!(bytes(&choice["logprobs"]), [json!([97]), json!([195])]);
    let stream = text(server.chat("aé", body(true)).await).await;
    let told = events(&stream)
        .iter()
        .flat_map(|event| bytes(&event["choices"][0]["logprobs"]))
        .collect::<Vec<_>>();
    assert_eq!(told, [json!([97]), json!([195])]);
}

#[tokio::test]
async fn logprobs_come_with_the_content_they_belong_to() {
    let server = Server::ready();
    let more = json!({"logprobs": true, "top_logprobs": 1, "max_tokens": 2});
    insta::assert_snapshot!(show(server.chat("ab", more).await).await, @r#"
    200 OK
    content-type: application/json

    {"id":"chatcmpl-ID","object":"chat.completion","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"message":{"role":"assistant","content":"ab","refusal":null},"logprobs":{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]}]},{"token":"b","logprob":-0.5,"bytes":[98],"top_logprobs":[{"token":"b","logprob":-0.5,"bytes":[98]}]}],"refusal":null},"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"timings":"TIMES"}
    "#);
    let more = json!({"logprobs": true, "stream": true});
    let stream = text(server.chat("héllo", more).await).await;
    let mut bytes = Vec::new();
    for event in events(&stream) {
        for token in event["choices"][0]["logprobs"]["content"]
            .as_array()
            .unwrap_or(&Vec::new())
        {
            let token: Vec<u8> = serde_json::from_value(token["bytes"].clone()).unwrap();
            bytes.extend(token);
        }
    }
    assert_eq!(String::from_utf8(bytes).unwrap(), "héllo");
}

#[tokio::test]
async fn several_answers_have_an_index_each_and_count_the_prompt_once() {
    let server = Server::ready();
    insta::assert_snapshot!(show(server.chat("a", json!({"n": 2})).await).await, @r#"
    200 OK
    content-type: application/json

    {"id":"chatcmpl-ID","object":"chat.completion","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"message":{"role":"assistant","content":"a","refusal":null},"logprobs":null,"finish_reason":"stop"},{"index":1,"message":{"role":"assistant","content":"a","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":4,"total_tokens":6,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"timings":"TIMES"}
    "#);
    let stream = text(server.chat("ab", json!({"n": 2, "stream": true})).await).await;
    let events = events(&stream);
    for index in 0..2 {
        let of_choice = events.iter().map(|event| &event["choices"][0]);
        let content: String = of_choice
            .filter(|choice| choice["index"] == index)
            .filter_map(|choice| choice["delta"]["content"].as_str())
            .collect();
        assert_eq!(content, "ab");
    }
}

#[tokio::test]
async fn limits_and_stop_strings_end_the_answer() {
    let server = Server::ready();
    let ask = async |more: Value| {
        let answer = value(server.chat("abcdef", more).await).await;
        let choice = &answer["choices"][0];
        let content = choice["message"]["content"].as_str().unwrap().to_owned();
        (
            content,
            choice["finish_reason"].as_str().unwrap().to_owned(),
        )
    };
    let ended = |content: &str, reason: &str| (content.to_owned(), reason.to_owned());
    assert_eq!(ask(json!({"max_tokens": 2})).await, ended("ab", "length"));
    let both = json!({"max_tokens": 9, "max_completion_tokens": 3});
    assert_eq!(ask(both).await, ended("abc", "length"));
    assert_eq!(
        ask(json!({"max_tokens": -1})).await,
        ended("abcdef", "stop")
    );
    assert_eq!(ask(json!({"stop": "cd"})).await, ended("ab", "stop"));
    assert_eq!(
        ask(json!({"stop_token_ids": [1, u32::from(b'e')]})).await,
        ended("abcd", "stop")
    );
    let predicted = json!({"type": "content", "content": [{"type": "text", "text": "abcdexxx"}]});
    assert_eq!(
        ask(json!({"prediction": predicted})).await,
        ended("abcdef", "stop")
    );
    assert_eq!(
        ask(json!({"stop": ["x", "ef"]})).await,
        ended("abcd", "stop")
    );
}

#[tokio::test]
async fn cached_prompts_are_shared_within_a_key_only_and_not_when_unwanted() {
    let keys = ["one", "two"].map(key).to_vec();
    let server = Setup {
        keys,
        ..Setup::default()
    }
    .start();
    // An answer much longer than the prompt would make the sequence dear.
    let short = json!({"max_tokens": 1});
    let cached = async |key: &str, more: &Value| {
        let mut request = post(
            "/v1/chat/completions",
            chat_body("abcdef", more.clone()).to_string(),
        );
        request
            .headers_mut()
            .insert("x-api-key", key.parse().unwrap());
        let answer = value(server.send(request).await).await;
        answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(cached("one", &short).await, 0);
    assert_eq!(cached("one", &short).await, 6, "all but the last token");
    assert_eq!(cached("two", &short).await, 0);
    assert_eq!(cached("two", &json!({"cache_prompt": false})).await, 0);
}

#[tokio::test]
async fn what_has_no_effect_with_this_template_is_said_in_a_header() {
    let server = Server::ready();
    let more = json!({"reasoning_budget_tokens": 5});
    insta::assert_snapshot!(show(server.chat("a", more).await).await, @r#"
    200 OK
    content-type: application/json
    x-warning: reasoning_budget_tokens: this model's chat template has no marks around thinking; there is no budget

    {"id":"chatcmpl-ID","object":"chat.completion","created":"NOW","model":"org/fake","system_fingerprint":"fp_test","choices":[{"index":0,"message":{"role":"assistant","content":"a","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"timings":"TIMES"}
    "#);
}

/// With place for what is said of tools.
fn roomy() -> Server {
    Setup {
        fake: Fake::new(2, 2048),
        ..Setup::default()
    }
    .start()
}

#[tokio::test]
async fn tools_are_called_though_the_template_knows_none() {
    let server = roomy();
    let call = r#"<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>"#;
    let tools = json!({"tools": [{"type": "function", "function": {"name": "f"}}]});
    let answer = value(server.chat(call, tools).await).await;
    let choice = &answer["choices"][0];
    let function = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(*function, json!({"name": "f", "arguments": "{\"a\": 1}"}));
    assert_eq!(choice["finish_reason"], "tool_calls");
    // Nobody offered any: it is text.
    let answer = value(server.chat(call, json!({})).await).await;
    assert_eq!(answer["choices"][0]["message"]["content"], call);
}

#[tokio::test]
async fn functions_are_called_in_the_old_way_where_they_are_offered_so() {
    let server = roomy();
    let call = r#"<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>"#;
    let function = json!({"name": "f", "arguments": "{\"a\": 1}"});
    let body = json!({
        "messages": [
            {"role": "user", "content": "Go."},
            {"role": "assistant", "content": null, "function_call": function},
            {"role": "function", "name": "f", "content": "gone"},
            {"role": "user", "content": call},
        ],
        "functions": [{"name": "f"}],
        "function_call": "auto",
    });
    let answer = value(server.post("/v1/chat/completions", body.clone()).await).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["function_call"], function);
    assert_eq!(choice["message"]["tool_calls"], Value::Null);
    assert_eq!(choice["finish_reason"], "function_call");
    let mut streamed = body;
    streamed["stream"] = true.into();
    let stream = text(server.post("/v1/chat/completions", streamed).await).await;
    let events = events(&stream);
    let of_call = |field: &str| -> String {
        let parts = events
            .iter()
            .filter_map(|event| event["choices"][0]["delta"]["function_call"][field].as_str());
        parts.collect()
    };
    assert_eq!(
        (of_call("name"), of_call("arguments")),
        ("f".into(), "{\"a\": 1}".into())
    );
    let last = events.last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "function_call");
}

#[tokio::test]
async fn histories_as_clients_send_them_are_accepted() {
    let server = Server::ready();
    let body = json!({
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                {"id": null, "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ]},
            {"role": "tool", "tool_call_id": "x", "content": [{"type": "text", "text": "42"}]},
            {"role": "user", "content": "thanks", "name": "eve", "extra": 1},
        ],
        "user": "u", "metadata": {}, "store": false, "service_tier": "auto",
        "some_new_field": true, "temperature": null, "modalities": ["text"],
    });
    let answer = value(server.post("/v1/chat/completions", body).await).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "thanks");
}

#[tokio::test]
async fn deterministic_parameters_of_every_family_are_accepted_together() {
    let server = Server::ready();
    let more = json!({
        "temperature": 0, "top_p": 1, "top_k": 40.0, "min_p": 0.1, "typical_p": 1, "top_n_sigma": -1,
        "xtc_probability": 0, "xtc_threshold": 0.1, "dry_multiplier": 0.8, "dry_base": 1.75,
        "dry_allowed_length": 2, "dry_penalty_last_n": -1, "dry_sequence_breakers": ["\n"],
        "repeat_penalty": 1.1, "repeat_last_n": -1, "frequency_penalty": -2, "presence_penalty": 2,
        "mirostat": 0, "mirostat_tau": 5, "mirostat_eta": 0.1, "dynatemp_range": 0,
        "dynatemp_exponent": 1, "logit_bias": {"97": -100}, "seed": -1, "ignore_eos": false,
        "n_probs": 0, "id_slot": -1, "cache_prompt": false, "parallel_tool_calls": true,
    });
    assert_eq!(server.chat("hi", more).await.status(), StatusCode::OK);
    let more = json!({"logit_bias": [[97, false], ["text", -1.5]], "seed": u64::MAX});
    assert_eq!(server.chat("hi", more).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn each_bad_parameter_is_named() {
    let server = Server::ready();
    let cases = [
        json!({"temperature": "hot"}),
        json!({"temperature": -0.1}),
        json!({"top_p": 1.5}),
        json!({"top_k": 1.5}),
        json!({"mirostat": 3}),
        json!({"seed": 1.5}),
        json!({"max_tokens": 0}),
        json!({"n": 9}),
        json!({"stop": [""]}),
        json!({"stop": 1}),
        json!({"stream": "yes"}),
        json!({"stream_options": {"include_usage": true}}),
        json!({"stream": true, "stream_options": {"include_usage": 1}}),
        json!({"top_logprobs": 2}),
        json!({"logprobs": true, "top_logprobs": 21}),
        json!({"logprobs": 1}),
        json!({"logit_bias": {"258": 1}}),
        json!({"logit_bias": {"1": 101}}),
        json!({"logit_bias": [[1]]}),
        json!({"dry_sequence_breakers": [1]}),
        json!({"modalities": ["text", "audio"]}),
        json!({"guided_json": {"type": "object"}, "regex": "a"}),
        json!({"structured_outputs": {"structural_tag": "a"}}),
        json!({"guided_regex": "("}),
        json!({"lark": "start: a"}),
        json!({"response_format": {"type": "json_schema", "json_schema": {"strict": true, "schema": {"properties": {"a": {"not": {}}}}}}}),
        json!({"functions": [{"name": "f"}], "tools": [{"type": "function", "function": {"name": "f"}}]}),
        json!({"functions": [{"name": ""}]}),
        json!({"functions": ["f"]}),
        json!({"functions": [{"name": "f"}], "function_call": {"name": "g"}}),
        json!({"functions": [{"name": "f"}], "function_call": "required"}),
        json!({"functions": [{"name": "f"}], "parallel_tool_calls": true}),
        json!({"function_call": {"name": "f"}}),
        json!({"model": 1}),
        json!({"user": 1}),
        json!({"response_format": {"type": "xml"}}),
        json!({"tool_choice": "required"}),
        json!({"messages": []}),
        json!({"messages": null}),
        json!({"messages": [{"role": "user", "content": 1}]}),
        json!({"messages": [
            {"role": "user", "content": "a"},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
        ]}),
    ];
    let told = refusals(async |more| server.chat("hi", more).await, cases).await;
    insta::assert_snapshot!(told, @r#"
    400 temperature invalid_value | temperature: expected a number from 0 to 5, got "hot"
    400 temperature invalid_value | temperature: expected a number from 0 to 5, got -0.1
    400 top_p invalid_value | top_p: expected a number from 0 to 1, got 1.5
    400 top_k invalid_value | top_k: expected an integer from -1 to 2147483647, got 1.5
    400 mirostat invalid_value | mirostat: expected an integer from 0 to 2, got 3
    400 seed invalid_value | seed: expected an integer of 64 bits, got 1.5
    400 max_tokens invalid_value | max_tokens: expected an integer of at least 1, or -1 for no limit, got 0
    400 n invalid_value | n: expected an integer from 1 to 8, got 9
    400 stop invalid_value | stop: expected a string that is not empty, or an array of at most 64 such strings, got an array of 1
    400 stop invalid_value | stop: expected a string that is not empty, or an array of at most 64 such strings, got 1
    400 stream invalid_value | stream: expected true or false, got "yes"
    400 stream_options invalid_value | stream_options: only allowed together with `stream: true`
    400 stream_options.include_usage invalid_value | stream_options.include_usage: expected true or false, got 1
    400 top_logprobs invalid_value | top_logprobs: only allowed together with `logprobs: true`
    400 top_logprobs invalid_value | top_logprobs: expected an integer from 0 to 20, got 21
    400 logprobs invalid_value | logprobs: expected true or false, got 1
    400 logit_bias.258 invalid_value | logit_bias.258: expected token ids below 258 with biases from -100 to 100 (or false), as an object or an array of pairs
    400 logit_bias.1 invalid_value | logit_bias.1: expected token ids below 258 with biases from -100 to 100 (or false), as an object or an array of pairs
    400 logit_bias[0] invalid_value | logit_bias[0]: expected token ids below 258 with biases from -100 to 100 (or false), as an object or an array of pairs
    400 dry_sequence_breakers invalid_value | dry_sequence_breakers: expected an array of at most 64 strings that are not empty, got an array of 1
    400 modalities invalid_value | modalities: expected ["text"], got an array of 2
    400 guided_json invalid_value | guided_json: not together with regex
    400 structured_outputs invalid_value | structured_outputs: expected one of json, regex, choice and grammar, got an object
    400 guided_regex invalid_value | guided_regex: not a regular expression: unclosed group
    400 lark invalid_value | lark: at 1(8): unknown name: "a"
       1 | start: a
                  ^
    400 response_format.json_schema.schema#/properties/a/not invalid_value | response_format.json_schema.schema#/properties/a/not: this keyword is not supported
    400 functions invalid_value | functions: not together with tools
    400 functions[0].name invalid_value | functions[0].name: expected a string of 1 to 256 bytes, got ""
    400 functions[0] invalid_value | functions[0]: expected a function, an object
    400 function_call.name invalid_value | function_call.name: "g" is not among the tools
    400 function_call invalid_value | function_call: expected "none", "auto" or {"name": …}, got "required"
    400 parallel_tool_calls invalid_value | parallel_tool_calls: an answer calls one of the functions; offer them as `tools`
    400 function_call invalid_value | function_call: demands a call, but there are no functions
    400 model invalid_value | model: expected a string, got 1
    400 user invalid_value | user: expected a string, got 1
    400 response_format.type invalid_value | response_format.type: expected "text", "json_object" or "json_schema", got "xml"
    400 tool_choice invalid_value | tool_choice: demands a tool call, but there are no tools
    400 messages invalid_value | messages: expected at least one message
    400 messages invalid_value | messages: expected an array of messages, got nothing
    400 messages[0].content invalid_value | messages[0].content: expected a string or an array of parts, got 1
    400 messages[1].content[0] invalid_value | messages[1].content[0]: this model takes no images
    "#);
}

#[tokio::test]
async fn what_other_servers_know_and_this_one_does_not_is_refused_by_name() {
    let server = Server::ready();
    let cases = [
        json!({"web_search_options": {}}),
        json!({"prompt_logprobs": 1}),
        json!({"skip_special_tokens": false}),
        json!({"echo": true}),
        json!({"include_stop_str_in_output": true}),
    ];
    let told = refusals(async |more| server.chat("hi", more).await, cases).await;
    insta::assert_snapshot!(told, @r#"
    400 web_search_options invalid_value | web_search_options: this server does not support it; leave it out
    400 prompt_logprobs invalid_value | prompt_logprobs: this server does not support it; leave it out
    400 skip_special_tokens invalid_value | skip_special_tokens: this server knows only true; leave it out
    400 echo invalid_value | echo: only /v1/completions knows it; leave it out
    400 include_stop_str_in_output invalid_value | include_stop_str_in_output: this server does not support it; leave it out
    "#);
}

#[tokio::test]
async fn a_long_body_is_prepared_elsewhere_and_answered_the_same() {
    let server = Server::ready();
    let padding = "x".repeat(20 << 10);
    let answer = value(
        server
            .chat("same", json!({"some_new_field": padding}))
            .await,
    )
    .await;
    assert_eq!(answer["choices"][0]["message"]["content"], "same");
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_an_error_in_the_clients_words_also_for_a_stream() {
    let server = Server::ready();
    let long = "x".repeat(CONTEXT as usize);
    insta::assert_snapshot!(show(server.chat(&long, json!({})).await).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"This model's maximum context length is 256 tokens. However, your messages resulted in 257 tokens. Please reduce the length of the messages.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}
    "#);
    let streamed = server.chat(&long, json!({"stream": true})).await;
    assert_eq!(streamed.status(), StatusCode::BAD_REQUEST);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn deltas_joined_are_the_whole_answer(message in "[^\r\n]{1,60}", seed in any::<u32>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::ready();
            let whole = value(server.chat(&message, json!({"seed": seed})).await).await;
            let body = chat_body(&message, json!({"seed": seed, "stream": true}));
            let stream = text(server.post("/v1/chat/completions", body).await).await;
            prop_assert!(stream.ends_with("data: [DONE]\n\n"));
            let joined: String = events(&stream)
                .iter()
                .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
                .collect();
            prop_assert_eq!(&whole["choices"][0]["message"]["content"], &joined);
            let last = events(&stream).pop().unwrap();
            prop_assert_eq!(&last["choices"][0]["finish_reason"], &whole["choices"][0]["finish_reason"]);
            prop_assert_eq!(&last["choices"][0]["delta"], &json!({}));
            Ok(())
        })?;
    }
}
