//! llama-server's own routes: completions, gaps, tokens, templates, sequences.

use axum::http::StatusCode;
use llm_server::{
    api::{Lora, Loras},
    engine::model::Fim,
};
use serde_json::{Value, json};

use crate::{
    life::until_running,
    support::{Server, Setup, events, gated, refusals, text, value, with},
};

const PATH: &str = "/completion";

#[tokio::test]
async fn a_whole_completion_has_every_field_of_llama_servers() {
    let server = Server::ready();
    let body = json!({"prompt": "ab\n", "seed": 1, "n_predict": 9});
    insta::assert_snapshot!(server.show_post(PATH, body).await, @r#"
    200 OK
    content-type: application/json

    {"index":0,"content":"ab","tokens":[],"id_slot":-1,"stop":true,"model":"org/fake","tokens_predicted":3,"tokens_evaluated":3,"generation_settings":{"seed":1,"temperature":0.800000011920929,"dynatemp_range":0.0,"dynatemp_exponent":1.0,"top_k":40,"top_p":0.949999988079071,"min_p":0.05000000074505806,"top_n_sigma":-1.0,"xtc_probability":0.0,"xtc_threshold":0.10000000149011612,"typical_p":1.0,"repeat_last_n":64,"repeat_penalty":1.0,"presence_penalty":0.0,"frequency_penalty":0.0,"dry_multiplier":0.0,"dry_base":1.75,"dry_allowed_length":2,"dry_penalty_last_n":-1,"dry_sequence_breakers":["\n",":","\"","*"],"mirostat":0,"mirostat_tau":5.0,"mirostat_eta":0.10000000149011612,"stop":[],"max_tokens":9,"n_predict":9,"n_keep":0,"n_discard":0,"n_indent":0,"ignore_eos":false,"stream":false,"logit_bias":[],"n_probs":0,"min_keep":0,"grammar":"","samplers":["penalties","dry","top_n_sigma","top_k","typ_p","top_p","min_p","xtc","temperature"],"timings_per_token":false,"post_sampling_probs":false,"lora":[]},"prompt":"ab\n","has_new_line":false,"truncated":false,"stop_type":"eos","stopping_word":"","tokens_cached":5,"timings":"TIMES"}
    "#);
}

#[tokio::test]
async fn both_paths_answer_the_same() {
    let server = Server::ready();
    let body = json!({"prompt": "ab\n", "seed": 1});
    let answers = [PATH, "/completions"].map(|path| server.show_post(path, body.clone()));
    let [one, other] = answers;
    let (one, other) = (one.await, other.await);
    // The second found its prompt in the cache, which only the times tell.
    assert_eq!(one, other);
}

#[tokio::test]
async fn a_stream_ends_with_the_object_that_says_stop() {
    let server = Server::ready();
    let body = json!({
        "prompt": "é\n", "stream": true, "return_tokens": true,
        "response_fields": ["content", "stop", "stop_type", "tokens_predicted", "generation_settings/stream", "nonsense"],
    });
    insta::assert_snapshot!(server.show_post(PATH, body).await, @r#"
    200 OK
    content-type: text/event-stream
    cache-control: no-cache
    x-accel-buffering: no

    data: {"index":0,"content":"é","tokens":[195,169],"stop":false,"id_slot":-1,"tokens_predicted":2,"tokens_evaluated":3}

    data: {"content":"","stop":true,"stop_type":"eos","tokens_predicted":3,"generation_settings/stream":true}
    "#);
}

#[tokio::test]
async fn probabilities_come_with_ids_and_bytes() {
    let server = Server::ready();
    let body = json!({
        "prompt": "a\n", "n_probs": 2, "n_predict": 1,
        "response_fields": ["completion_probabilities", "stop_type", "tokens"],
    });
    insta::assert_snapshot!(server.show_post(PATH, body).await, @r#"
    200 OK
    content-type: application/json

    {"completion_probabilities":[{"id":97,"token":"a","bytes":[97],"logprob":-0.5,"top_logprobs":[{"id":97,"token":"a","bytes":[97],"logprob":-0.5},{"id":256,"token":"<eos>","bytes":[60,101,111,115,62],"logprob":-1.5}]}],"stop_type":"limit","tokens":[]}
    "#);
}

#[tokio::test]
async fn several_prompts_get_an_array_of_answers() {
    let server = Server::ready();
    let body = json!({
        "prompt": ["a\n", [98, 10], ["c", 10]], "n_cmpl": 2,
        "response_fields": ["index", "content"],
    });
    let answers = value(server.post(PATH, body).await).await;
    let told: Vec<_> = answers
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    {"index":0,"content":"a"}
    {"index":1,"content":"a"}
    {"index":2,"content":"b"}
    {"index":3,"content":"b"}
    {"index":4,"content":"c"}
    {"index":5,"content":"c"}
    "#);
}

#[tokio::test]
async fn how_an_answer_ended_is_told() {
    let server = Server::ready();
    let asked = [
        json!({"prompt": "abc\n"}),
        json!({"prompt": "abc\n", "stop": ["c", "bc"]}),
        json!({"prompt": "abc\n", "n_predict": 2}),
        json!({"prompt": "abc\n", "n_predict": 0}),
        // Without a newline at its end the model begins with one.
        json!({"prompt": "a", "n_indent": 1}),
        json!({"prompt": format!("{}\n", "a".repeat(200))}),
    ];
    let mut told = Vec::new();
    for mut body in asked {
        body["response_fields"] = json!([
            "content",
            "stop_type",
            "stopping_word",
            "truncated",
            "has_new_line",
            "tokens_evaluated",
            "tokens_predicted",
            "tokens_cached"
        ]);
        told.push(text(server.post(PATH, body).await).await);
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    {"content":"abc","stop_type":"eos","stopping_word":"","truncated":false,"has_new_line":false,"tokens_evaluated":4,"tokens_predicted":4,"tokens_cached":7}
    {"content":"a","stop_type":"word","stopping_word":"bc","truncated":false,"has_new_line":false,"tokens_evaluated":4,"tokens_predicted":3,"tokens_cached":6}
    {"content":"ab","stop_type":"limit","stopping_word":"","truncated":false,"has_new_line":false,"tokens_evaluated":4,"tokens_predicted":2,"tokens_cached":5}
    {"content":"","stop_type":"limit","stopping_word":"","truncated":false,"has_new_line":false,"tokens_evaluated":4,"tokens_predicted":0,"tokens_cached":4}
    {"content":"\n","stop_type":"limit","stopping_word":"","truncated":false,"has_new_line":true,"tokens_evaluated":1,"tokens_predicted":2,"tokens_cached":2}
    {"content":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","stop_type":"limit","stopping_word":"","truncated":true,"has_new_line":false,"tokens_evaluated":201,"tokens_predicted":55,"tokens_cached":255}
    "#);
}

#[tokio::test]
async fn a_wish_that_has_no_effect_is_told() {
    let server = Server::ready();
    let body = json!({"prompt": "a\n", "id_slot": 1, "n_keep": -1});
    let response = server.post(PATH, body).await;
    let warnings: Vec<_> = response.headers().get_all("x-warning").iter().collect();
    assert_eq!(warnings.len(), 2);
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn what_a_completion_cannot_do_is_refused_by_name() {
    let server = Server::ready();
    let cases = [
        json!({"prompt": null}),
        json!({"prompt": ""}),
        json!({"id_slot": 2}),
        json!({"n_keep": 5}),
        json!({"n_predict": -2}),
        json!({"n_probs": 256}),
        json!({"post_sampling_probs": true}),
        json!({"return_progress": true}),
        json!({"samplers": ["temperature", "top_k"]}),
        json!({"response_fields": "content"}),
        json!({"n_cmpl": 9}),
        json!({"timings_per_token": true, "n_cmpl": 2}),
        json!({"adaptive_target": 0.5}),
        json!({"temperature": 9}),
        json!({"lora": [{"id": 0, "scale": 1}]}),
        json!({"json_schema": "x"}),
        json!({"model": "other"}),
    ];
    let told = refusals(
        async |wish| {
            server
                .post(PATH, with(json!({"prompt": "a\n"}), wish))
                .await
        },
        cases,
    )
    .await;
    insta::assert_snapshot!(told, @r#"
    400 prompt invalid_value | prompt: expected a string, an array of token ids below 258 and strings, or an array of at most 32 such prompts, none of them empty, but it is missing
    400 prompt invalid_value | prompt: expected a string, an array of token ids below 258 and strings, or an array of at most 32 such prompts, none of them empty, got ""
    400 id_slot invalid_value | id_slot: expected an integer from -1 to 1, got 2
    400 n_keep invalid_value | n_keep: a context that is full is not shifted by this server (engine.overflow); leave it out
    400 n_predict invalid_value | n_predict: expected an integer from -1 to 4294967295, got -2
    400 n_probs invalid_value | n_probs: expected an integer from 0 to 255, got 256
    400 post_sampling_probs invalid_value | post_sampling_probs: only false, for probabilities are told as they are before sampling
    400 return_progress invalid_value | return_progress: only false, for progress through a prompt is not told
    400 samplers invalid_value | samplers: expected an array of some of ["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"] and "infill", in this order, got an array of 2
    400 response_fields invalid_value | response_fields: expected an array, got "content"
    400 n_cmpl invalid_value | n_cmpl: expected an integer from 1 to 8, got 9
    400 timings_per_token invalid_value | timings_per_token: only for a single answer
    400 adaptive_target invalid_value | adaptive_target: only -1, for this sampler is not offered
    400 temperature invalid_value | temperature: expected a number from 0 to 5, got 9
    400 lora[0].id invalid_value | lora[0].id: expected no adapter at all, for this server has loaded none, got 0
    400 json_schema invalid_value | json_schema: expected a JSON schema, an object
    404 model model_not_found | the model `other` does not exist; this server serves `org/fake`
    "#);
}

#[tokio::test]
async fn what_means_off_is_let_pass() {
    let server = Server::ready();
    let body = json!({
        "prompt": "a\n", "id_slot": -1, "n_keep": 0, "n_discard": 0, "n_cache_reuse": 0, "lora": [], "min_keep": 0,
        "post_sampling_probs": false, "return_progress": false, "adaptive_target": -1.0, "t_max_predict_ms": -1,
        "n_indent": 0, "image_data": [], "samplers": ["top_k", "temperature"], "cache_prompt": false, "verbose": true,
        "grammar": "", "preserved_tokens": [], "sse_ping_interval": -1, "timings_per_token": true, "stream": true,
    });
    let response = server.post(PATH, body).await;
    assert_eq!(response.status(), StatusCode::OK);
    let chunks = events(&text(response).await);
    assert_eq!(chunks[0]["timings"]["predicted_n"], 1);
    assert_eq!(chunks[0]["timings"]["prompt_n"], 2);
}

#[tokio::test]
async fn biases_may_be_named_by_texts_as_well() {
    let server = Server::ready();
    let body = json!({
        "prompt": "a\n", "logit_bias": {"bc": -100, "7": 1.5},
        "response_fields": ["generation_settings/logit_bias"],
    });
    insta::assert_snapshot!(text(server.post(PATH, body).await).await, @r#"{"generation_settings/logit_bias":[{"token":98,"bias":-100.0},{"token":99,"bias":-100.0},{"token":7,"bias":1.5}]}"#);
    let told = refusals(
        async |body| server.post(PATH, body).await,
        [json!({"prompt": "a", "logit_bias": {"bc": "never"}})],
    )
    .await;
    insta::assert_snapshot!(told, @"400 logit_bias[0] invalid_value | logit_bias[0]: expected token ids below 258 with biases from -100 to 100 (or false), as an object or an array of pairs");
}

/// A server whose vocabulary marks gaps: 1, 2 and a newline, after which the model repeats the line before it.
fn with_gaps() -> Server {
    let fim = Fim {
        prefix: Some(1),
        suffix: Some(2),
        middle: Some(10),
        file: Some(5),
        ..Fim::default()
    };
    Setup {
        fim,
        ..Setup::default()
    }
    .start()
}

#[tokio::test]
async fn a_gap_is_filled_with_the_other_files_before_it() {
    let server = with_gaps();
    // What llama.vim sends.
    let body = json!({
        "id_slot": 0, "input_prefix": "let x", "input_suffix": ";", "prompt": " =",
        "input_extra": [{"text": "fn", "filename": "a.rs"}, {"text": "no name"}],
        "n_predict": 64, "stop": [], "n_indent": 0, "top_k": 40, "top_p": 0.9, "samplers": ["top_k", "top_p", "infill"],
        "stream": false, "cache_prompt": true, "t_max_prompt_ms": 500, "t_max_predict_ms": 1000,
        "response_fields": ["content", "prompt", "timings/prompt_n", "truncated"],
    });
    let response = server.post("/infill", body).await;
    insta::assert_snapshot!(text(response).await, @r#"{"content":"\u0001let x =\u0002;","prompt":"\u0005a.rs\nfn\u0005tmp\nno name\u0005filename\n\u0001let x =\u0002;\n","timings/prompt_n":41,"truncated":false}"#);
}

#[tokio::test]
async fn a_completion_with_a_suffix_fills_the_gap_before_it() {
    let server = with_gaps();
    let body = json!({"prompt": "let x =", "suffix": ";", "echo": true});
    let answer = value(server.post("/v1/completions", body).await).await;
    assert_eq!(answer["choices"][0]["text"], "let x =\u{1}let x =\u{2};");
}

#[tokio::test]
async fn a_gap_that_cannot_be_filled_says_why() {
    let long = "a".repeat(300);
    let mut told = Vec::new();
    for (server, body) in [
        (
            Server::ready(),
            json!({"input_prefix": "a", "input_suffix": "b"}),
        ),
        (with_gaps(), json!({"input_suffix": "b"})),
        (with_gaps(), json!({"input_prefix": "a", "input_suffix": 1})),
        (
            with_gaps(),
            json!({"input_prefix": "a", "input_suffix": "", "input_extra": ["b"]}),
        ),
        (
            with_gaps(),
            json!({"input_prefix": "a", "input_suffix": "", "input_extra": [{}]}),
        ),
        (
            with_gaps(),
            json!({"input_prefix": long, "input_suffix": ""}),
        ),
    ] {
        let response = server.post("/infill", body).await;
        let status = response.status().as_u16();
        let error = value(response).await;
        told.push(format!(
            "{status} {} | {}",
            error["error"]["param"], error["error"]["message"]
        ));
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    400 null | "the model served here cannot fill a gap: its vocabulary has no token for prefix, suffix, middle"
    400 "input_prefix" | "input_prefix: expected a string, but it is missing"
    400 "input_suffix" | "input_suffix: expected a string, got 1"
    400 "input_extra[0]" | "input_extra[0]: expected an object with `text` and `filename`"
    400 "input_extra[0].text" | "input_extra[0].text: expected a string, but it is missing"
    400 "input_prefix" | "This model's maximum context length is 256 tokens. However, your input_prefix resulted in 303 tokens. Please reduce the length of the input_prefix."
    "#);
}

#[tokio::test]
async fn more_files_than_fit_are_cut_where_they_begin() {
    let server = with_gaps();
    let body = json!({
        "input_prefix": "p", "input_suffix": "s", "input_extra": [{"text": "x".repeat(500), "filename": "x"}],
        "n_predict": 10, "response_fields": ["prompt", "tokens_evaluated"],
    });
    let answer = value(server.post("/infill", body).await).await;
    assert_eq!(answer["tokens_evaluated"], 256 - 10 - 1);
    let prompt = answer["prompt"].as_str().unwrap();
    assert!(prompt.starts_with("xxx") && prompt.ends_with("\u{5}filename\n\u{1}p\u{2}s\n"));
}

#[tokio::test]
async fn text_becomes_tokens_and_text_again() {
    let server = Server::ready();
    let show = |path: &'static str, body: Value| {
        let response = server.post(path, body);
        async { text(response.await).await }
    };
    let told = [
        show("/tokenize", json!({"content": "aé"})).await,
        show(
            "/tokenize",
            json!({"content": ["a", 256, "b"], "with_pieces": true}),
        )
        .await,
        show(
            "/tokenize",
            json!({"content": "é", "with_pieces": true, "add_special": true}),
        )
        .await,
        show("/tokenize", json!({})).await,
        show("/tokenize", json!({"content": [258]})).await,
        show("/detokenize", json!({"tokens": [97, 256, 195, 169]})).await,
        show("/detokenize", json!({"tokens": []})).await,
        show("/detokenize", json!({"tokens": [-1]})).await,
    ];
    insta::assert_snapshot!(told.join("\n"), @r#"
    {"tokens":[97,195,169]}
    {"tokens":[{"id":97,"piece":"a"},{"id":256,"piece":"<eos>"},{"id":98,"piece":"b"}]}
    {"tokens":[{"id":195,"piece":[195]},{"id":169,"piece":[169]}]}
    {"error":{"message":"content: expected a string, or an array of token ids below 258 and strings, but it is missing","type":"invalid_request_error","param":"content","code":"invalid_value"}}
    {"error":{"message":"content: expected a string, or an array of token ids below 258 and strings, got an array of 1","type":"invalid_request_error","param":"content","code":"invalid_value"}}
    {"content":"a<eos>é"}
    {"content":""}
    {"error":{"message":"tokens: expected an array of token ids below 258, got an array of 1","type":"invalid_request_error","param":"tokens","code":"invalid_value"}}
    "#);
}

#[tokio::test]
async fn a_chat_requests_prompt_is_shown_and_counted() {
    let server = Server::ready();
    let body = json!({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]});
    for (path, told) in [
        ("/apply-template", r#"{"prompt":"Be brief.\nHi\n"}"#),
        (
            "/v1/chat/completions/input_tokens",
            r#"{"input_tokens":13,"object":"response.input_tokens"}"#,
        ),
        (
            "/chat/completions/input_tokens",
            r#"{"input_tokens":13,"object":"response.input_tokens"}"#,
        ),
    ] {
        assert_eq!(text(server.post(path, body.clone()).await).await, told);
        let wrong = value(server.post(path, json!({"messages": []})).await).await;
        assert_eq!(wrong["error"]["param"], "messages");
    }
}

#[tokio::test]
async fn sequences_tell_what_they_do_and_nothing_of_what_is_said() {
    let (fake, permits) = gated(2);
    let server = Setup {
        fake,
        ..Setup::default()
    }
    .start();
    let body = || json!({"prompt": "secret\n", "n_predict": 5});
    let running = server.post(PATH, body());
    tokio::pin!(running);
    assert!(futures_util::poll!(&mut running).is_pending());
    until_running(&server, 1).await;
    permits.send(()).unwrap();
    permits.send(()).unwrap();
    // The prompt is computed and a token of the answer; the next step waits for its permit.
    loop {
        let slots = value(server.get("/slots?fail_on_no_slot=1").await).await;
        if slots[0]["next_token"][0]["n_decoded"] == 2 {
            insta::assert_snapshot!(slots.to_string(), @r#"[{"id":0,"n_ctx":256,"is_processing":true,"n_prompt_tokens":8,"n_prompt_tokens_processed":7,"n_prompt_tokens_cache":0,"next_token":[{"has_next_token":true,"n_remain":3,"n_decoded":2}]},{"id":1,"n_ctx":256,"is_processing":false,"n_prompt_tokens":0,"n_prompt_tokens_processed":0,"n_prompt_tokens_cache":0,"next_token":[{"has_next_token":false,"n_remain":-1,"n_decoded":0}]}]"#);
            break;
        }
        tokio::task::yield_now().await;
    }
    let second = server.post(PATH, body());
    tokio::pin!(second);
    assert!(futures_util::poll!(&mut second).is_pending());
    permits.send(()).unwrap();
    until_running(&server, 2).await;
    let full = server.get("/slots?fail_on_no_slot=1").await;
    assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(value(full).await["error"]["message"], "no sequence is free");
    assert_eq!(server.get("/slots").await.status(), StatusCode::OK);
    drop(permits);
    assert_eq!(running.await.status(), StatusCode::OK);
    assert_eq!(second.await.status(), StatusCode::OK);
    server.idle().await;
}

#[tokio::test]
async fn what_would_change_the_server_is_refused() {
    let server = Server::ready();
    let mut told = Vec::new();
    for path in [
        "/props",
        "/slots/0?action=save",
        "/slots/0?action=restore",
        "/slots/0?action=erase",
        "/slots/0?action=dance",
        "/slots/0",
    ] {
        let response = server.post(path, json!({})).await;
        let status = response.status().as_u16();
        let error = value(response).await;
        told.push(format!("{path}: {status} {}", error["error"]["message"]));
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    /props: 400 "the properties of this server are set in its configuration file and do not change while it runs"
    /slots/0?action=save: 400 "action: sequences are neither saved nor restored nor erased here: that needs cache.slots = \"FOLDER\" in the configuration; computed prompts are found again by what they say (cache.ram, cache.disk)"
    /slots/0?action=restore: 400 "action: sequences are neither saved nor restored nor erased here: that needs cache.slots = \"FOLDER\" in the configuration; computed prompts are found again by what they say (cache.ram, cache.disk)"
    /slots/0?action=erase: 400 "action: sequences are neither saved nor restored nor erased here: that needs cache.slots = \"FOLDER\" in the configuration; computed prompts are found again by what they say (cache.ram, cache.disk)"
    /slots/0?action=dance: 400 "action: sequences are neither saved nor restored nor erased here: that needs cache.slots = \"FOLDER\" in the configuration; computed prompts are found again by what they say (cache.ram, cache.disk)"
    /slots/0: 400 "action: sequences are neither saved nor restored nor erased here: that needs cache.slots = \"FOLDER\" in the configuration; computed prompts are found again by what they say (cache.ram, cache.disk)"
    "#);
}

/// A server whose model has two adapters, of which one has a name of its own.
fn with_adapters() -> Server {
    let lora = |name: &str, alias: Option<&str>, scale| Lora {
        name: name.to_owned(),
        alias: alias.map(str::to_owned),
        sha256: name.to_owned(),
        scale,
        task: String::new(),
        prompt_prefix: String::new(),
        invocation: Vec::new(),
    };
    Setup {
        loras: Loras::new(vec![
            lora("tone", Some("poet"), 1.0),
            lora("law", None, 0.0),
        ]),
        ..Setup::default()
    }
    .start()
}

/// What the model says after `abc`, each letter moved on by the adapters, once for every token before it.
async fn says(server: &Server, wish: Value) -> String {
    let mut body = json!({"prompt": "abc\n", "n_predict": 3, "cache_prompt": false});
    body.as_object_mut()
        .unwrap()
        .extend(wish.as_object().unwrap().clone());
    let answer = value(server.post("/completion", body).await).await;
    answer["content"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
        .to_owned()
}

#[tokio::test]
async fn adapters_are_worn_by_request_by_name_and_by_default() {
    let server = with_adapters();
    assert_eq!(says(&server, json!({})).await, "egi");
    assert_eq!(
        says(&server, json!({"lora": [{"id": 0, "scale": 0}]})).await,
        "abc"
    );
    assert_eq!(
        says(&server, json!({"lora": [{"id": 1, "scale": 1}]})).await,
        "ilo"
    );
    assert_eq!(says(&server, json!({"model": "poet"})).await, "egi");
    let response = server
        .post("/lora-adapters", json!([{"id": 1, "scale": 1}]))
        .await;
    assert_eq!(text(response).await, r#"{"success":true}"#);
    assert_eq!(says(&server, json!({})).await, "ilo");
    assert_eq!(says(&server, json!({"model": "poet"})).await, "egi");
    assert_eq!(
        says(&server, json!({"model": "org/fake", "lora": []})).await,
        "ilo"
    );
    insta::assert_snapshot!(text(server.get("/lora-adapters").await).await, @r#"[{"id":0,"path":"tone","scale":0.0,"task_name":"","prompt_prefix":""},{"id":1,"path":"law","scale":1.0,"task_name":"","prompt_prefix":""}]"#);
    let models = value(server.get("/v1/models").await).await;
    let ids: Vec<_> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["id"])
        .collect();
    assert_eq!(ids, ["org/fake", "poet"]);
    let response = server
        .post(
            "/lora-adapters",
            json!([{"id": 1, "scale": 1}, {"id": 2, "scale": 1}]),
        )
        .await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(says(&server, json!({})).await, "ilo");
}
