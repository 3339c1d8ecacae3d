//! Embeddings: OpenAI's shape and llama-server's, what is refused, and what a model of another kind says.

use std::sync::mpsc;

use axum::{body::Body, http::StatusCode};
use llm_server::{
    api::Stage,
    engine::{Busy, embed::fake::FakeEncoder, task::Pooling},
};
use serde_json::{Value, json};

use crate::support::{
    Reader, Server, Setup, collect_log, key, post, refusals, request_lines, show, text, value,
};

const PATH: &str = "/v1/embeddings";

/// The encoder counts bytes by their lowest three bits: `abc` → one each of 1, 2 and 3.
#[tokio::test]
async fn texts_come_back_as_unit_vectors_in_their_order() {
    let reader = Reader::ready(Pooling::Mean);
    insta::assert_snapshot!(reader.show_post(PATH, json!({"model": "org/fake", "input": ["a", "ccb", "h"]})).await, @r#"
    200 OK
    content-type: application/json

    {"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0]},{"object":"embedding","index":1,"embedding":[0.0,0.0,0.4472136,0.8944272,0.0,0.0,0.0,0.0]},{"object":"embedding","index":2,"embedding":[1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0]}],"model":"org/fake","usage":{"prompt_tokens":5,"total_tokens":5}}
    "#);
    insta::assert_snapshot!(reader.show_post(PATH, json!({"input": "aaaa"})).await, @r#"
    200 OK
    content-type: application/json

    {"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0]}],"model":"org/fake","usage":{"prompt_tokens":4,"total_tokens":4}}
    "#);
}

#[tokio::test]
async fn base64_holds_little_endian_floats() {
    let reader = Reader::ready(Pooling::Mean);
    let body = json!({"input": "a", "encoding_format": "base64", "dimensions": 8, "user": "me"});
    insta::assert_snapshot!(reader.show_post(PATH, body).await, @r#"
    200 OK
    content-type: application/json

    {"object":"list","data":[{"object":"embedding","index":0,"embedding":"AAAAAAAAgD8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}],"model":"org/fake","usage":{"prompt_tokens":1,"total_tokens":1}}
    "#);
}

#[tokio::test]
async fn tokens_are_texts_too_alone_and_in_lists() {
    let reader = Reader::ready(Pooling::Mean);
    let vectors = async |input: Value| {
        let answer = value(reader.post(PATH, json!({"input": input})).await).await;
        assert_eq!(
            answer["usage"]["total_tokens"],
            answer["usage"]["prompt_tokens"]
        );
        let data = answer["data"].as_array().unwrap().clone();
        data.into_iter()
            .map(|one| one["embedding"].clone())
            .collect::<Vec<_>>()
    };
    let text = vectors(json!("ab")).await;
    assert_eq!(vectors(json!([97, 98])).await, text);
    assert_eq!(vectors(json!([[97, 98]])).await, text);
    assert_eq!(
        vectors(json!(["ab", [97, 98]])).await,
        [text.clone(), text].concat()
    );
}

#[tokio::test]
async fn two_thousand_texts_are_answered_at_once() {
    let reader = Reader::ready(Pooling::Mean);
    let input = vec!["abc"; 2048];
    let answer = value(reader.post(PATH, json!({"input": input})).await).await;
    let data = answer["data"].as_array().unwrap();
    assert_eq!(data.len(), 2048);
    assert!((0..).zip(data).all(|(at, one)| one["index"] == at));
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused_by_name() {
    let reader = Reader::ready(Pooling::Mean);
    let cases = [
        json!({}),
        json!({"input": ""}),
        json!({"input": []}),
        json!({"input": ["a", ""]}),
        json!({"input": [1.5]}),
        json!({"input": {"text": "a"}}),
        json!({"input": vec!["a"; 2049]}),
        json!({"input": [300]}),
        json!({"input": [[1], [2, -7]]}),
        json!({"input": "x".repeat(33)}),
        json!({"input": ["a", "x".repeat(33)]}),
        json!({"input": "a", "dimensions": 4}),
        json!({"input": "a", "encoding_format": "int8"}),
        json!({"input": "a", "model": "gpt-4"}),
        json!({"input": "a", "task": "retrieval.query"}),
    ];
    let told = refusals(async |body| reader.post(PATH, body).await, cases).await;
    insta::assert_snapshot!(told, @r#"
    400 input invalid_value | input: expected a string, an array of token ids below 258, or an array of 1 to 2048 of these, none of them empty, but it is missing
    400 input invalid_value | input: expected a string, an array of token ids below 258, or an array of 1 to 2048 of these, none of them empty, got ""
    400 input invalid_value | input: expected a string, an array of token ids below 258, or an array of 1 to 2048 of these, none of them empty, got an array of 0
    400 input[1] invalid_value | input[1]: expected a string or an array of token ids, not empty
    400 input invalid_value | input: expected a string, an array of token ids below 258, or an array of 1 to 2048 of these, none of them empty, got an array of 1
    400 input invalid_value | input: expected a string, an array of token ids below 258, or an array of 1 to 2048 of these, none of them empty, got an object
    400 input invalid_value | input: expected a string, an array of token ids below 258, or an array of 1 to 2048 of these, none of them empty, got an array of 2049
    400 input invalid_value | input: token 300 is not in this model's vocabulary
    400 input[1] invalid_value | input[1]: token -7 is not in this model's vocabulary
    400 input context_length_exceeded | input: 33 tokens are more than the 32 that can be read (the server's engine.ubatch)
    400 input[1] context_length_exceeded | input[1]: 33 tokens are more than the 32 that can be read (the server's engine.ubatch)
    400 dimensions invalid_value | dimensions: expected 8, which this model's vectors have, got 4
    400 encoding_format invalid_value | encoding_format: expected "float" or "base64", got "int8"
    404 model model_not_found | the model `gpt-4` does not exist; this server serves `org/fake`
    400 task invalid_value | task: this server does not support it; leave it out
    "#);
}

#[tokio::test]
async fn llama_servers_own_shape_has_a_list_of_vectors_for_each_text() {
    let reader = Reader::ready(Pooling::Mean);
    insta::assert_snapshot!(reader.show_post("/embedding", json!({"content": "aab"})).await, @r#"
    200 OK
    content-type: application/json

    [{"index":0,"embedding":[[0.0,0.8944272,0.4472136,0.0,0.0,0.0,0.0,0.0]]}]
    "#);
    let own = json!({"input": ["aab"], "embd_normalize": -1});
    insta::assert_snapshot!(reader.show_post("/embeddings", own).await, @r#"
    200 OK
    content-type: application/json

    [{"index":0,"embedding":[[0.0,2.0,1.0,0.0,0.0,0.0,0.0,0.0]]}]
    "#);

    let tokens = Reader::ready(Pooling::None);
    insta::assert_snapshot!(tokens.show_post("/embedding", json!({"content": "ab"})).await, @r#"
    200 OK
    content-type: application/json

    [{"index":0,"embedding":[[0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0],[0.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0]]}]
    "#);
    insta::assert_snapshot!(tokens.show_post(PATH, json!({"input": "ab"})).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"engine.pooling = 'none gives a vector for each token, which only /embedding answers with; /v1/embeddings needs 'mean, 'cls or 'last","type":"invalid_request_error","param":null,"code":"unsupported_by_model"}}
    "#);
}

#[tokio::test]
async fn a_model_says_what_it_is_when_asked_for_something_else() {
    let (chat, reader, ranker) = (
        Server::ready(),
        Reader::ready(Pooling::Mean),
        Reader::ready(Pooling::Rank),
    );
    insta::assert_snapshot!(chat.show_post(PATH, json!({"input": "a"})).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"the model served here generates text and cannot embed: that needs an embedding model (model.kind = 'embedding takes vectors out of any model)","type":"invalid_request_error","param":null,"code":"unsupported_by_model"}}
    "#);
    insta::assert_snapshot!(chat.show_post("/v1/rerank", json!({"query": "a", "documents": ["b"]})).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"the model served here generates text and cannot rank: that needs a reranking model (one with a classifier; model.kind = 'rerank)","type":"invalid_request_error","param":null,"code":"unsupported_by_model"}}
    "#);
    insta::assert_snapshot!(reader.show_post("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "hi"}]})).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"the model served here embeds and cannot generate text: that needs a model that generates (model.kind = 'chat, for models that can)","type":"invalid_request_error","param":null,"code":"unsupported_by_model"}}
    "#);
    insta::assert_snapshot!(reader.show_post("/v1/completions", json!({"prompt": "hi"})).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"the model served here embeds and cannot generate text: that needs a model that generates (model.kind = 'chat, for models that can)","type":"invalid_request_error","param":null,"code":"unsupported_by_model"}}
    "#);
    insta::assert_snapshot!(reader.show_post("/v1/rerank", json!({"query": "a", "documents": ["b"]})).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"the model served here embeds and cannot rank: that needs a reranking model (one with a classifier; model.kind = 'rerank)","type":"invalid_request_error","param":null,"code":"unsupported_by_model"}}
    "#);
    insta::assert_snapshot!(ranker.show_post(PATH, json!({"input": "a"})).await, @r#"
    400 Bad Request
    content-type: application/json

    {"error":{"message":"the model served here ranks documents and cannot embed: that needs an embedding model (model.kind = 'embedding takes vectors out of any model)","type":"invalid_request_error","param":null,"code":"unsupported_by_model"}}
    "#);
}

#[tokio::test]
async fn health_models_and_props_answer_as_for_any_model() {
    let reader = Reader::ready(Pooling::Mean);
    assert_eq!(reader.get("/health").await.status(), StatusCode::OK);
    assert_eq!(reader.get("/version").await.status(), StatusCode::OK);
    let models = value(reader.get("/v1/models").await).await;
    assert_eq!(models["data"][0]["id"], "org/fake");
    let props = value(reader.get("/props").await).await;
    assert_eq!(props["kind"], "embedding");
    assert_eq!(
        (&props["context"], &props["chat_template"]),
        (&json!(32), &json!(""))
    );
    reader.stage.send_replace(Stage::Draining);
    insta::assert_snapshot!(reader.show_post(PATH, json!({"input": "a"})).await, @r#"
    503 Service Unavailable
    content-type: application/json
    retry-after: 2
    retry-after-ms: 2000

    {"error":{"message":"the server is shutting down","type":"unavailable_error","param":null,"code":"shutting_down"}}
    "#);
}

#[tokio::test]
async fn embeddings_need_the_key_that_is_configured() {
    let setup = Setup {
        keys: vec![key("sk-1")],
        ..Setup::default()
    };
    let reader = setup.read(FakeEncoder::new(Pooling::Mean));
    let status = reader.post(PATH, json!({"input": "a"})).await.status();
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let mut request = post(PATH, Body::from(r#"{"input": "a"}"#));
    let key = "Bearer sk-1".parse().unwrap();
    request.headers_mut().insert("authorization", key);
    assert_eq!(reader.send(request).await.status(), StatusCode::OK);
}

/// Each step waits for a permit.
fn gated() -> (FakeEncoder, mpsc::Sender<()>) {
    let (permits, gate) = mpsc::channel();
    let encoder = FakeEncoder::new(Pooling::Mean).with_fault(Box::new(move |_| {
        let _ = gate.recv();
        None
    }));
    (encoder, permits)
}

#[tokio::test]
async fn a_full_queue_is_429_and_a_caller_that_leaves_frees_its_place() {
    collect_log();
    let (encoder, permits) = gated();
    let setup = Setup {
        queue: 0,
        ..Setup::default()
    };
    let reader = setup.read(encoder);
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut one = Box::pin(reader.post(PATH, json!({"input": "a"})));
        assert!(futures_util::poll!(&mut one).is_pending());
        held.push(one);
    }
    insta::assert_snapshot!(reader.show_post(PATH, json!({"input": "a"})).await, @r#"
    429 Too Many Requests
    content-type: application/json
    retry-after: 1
    retry-after-ms: 1000

    {"error":{"message":"the server is busy: 0 requests are waiting already","type":"rate_limit_error","param":null,"code":"queue_full"}}
    "#);
    drop(held);
    assert!(
        request_lines()
            .iter()
            .any(|line| line.contains("outcome=\"hung_up\""))
    );
    drop(permits);
    while reader.watch.busy() != Busy::default() {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        reader.post(PATH, json!({"input": "a"})).await.status(),
        StatusCode::OK
    );
    let last = request_lines().pop().unwrap();
    assert!(
        last.contains("tokens_in=1 ") && last.contains("outcome=\"ok\""),
        "{last}"
    );
}

#[tokio::test]
async fn an_engine_that_was_given_up_or_halted_says_so() {
    let (encoder, permits) = gated();
    let reader = Setup::default().read(encoder);
    let mut waiting = Box::pin(reader.post(PATH, json!({"input": "a"})));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    reader.watch.give_up();
    let answer = show(waiting.await).await;
    assert!(
        answer.starts_with("503") && answer.contains("engine_stopped"),
        "{answer}"
    );
    reader.watch.halt();
    drop(permits);
    let answer = text(reader.post(PATH, json!({"input": "a"})).await).await;
    assert!(answer.contains("shutting_down"), "{answer}");
}
