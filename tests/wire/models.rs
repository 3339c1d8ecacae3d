//! The list of models and each of its entries.

use axum::http::StatusCode;
use serde_json::json;

use crate::support::{Server, Setup, value};

fn with_aliases(aliases: &[&str]) -> Server {
    let aliases = aliases.iter().map(ToString::to_string).collect();
    Setup {
        aliases,
        ..Setup::default()
    }
    .start()
}

#[tokio::test]
async fn the_list_begins_with_the_models_own_name() {
    let server = with_aliases(&["gpt-4o"]);
    insta::assert_snapshot!(server.show_get("/v1/models").await, @r#"
    200 OK
    content-type: application/json

    {"object":"list","data":[{"id":"org/fake","object":"model","created":1700000000,"owned_by":"llm-server","type":"model","display_name":"org/fake","created_at":"2023-11-14T22:13:20Z","architecture":{"input_modalities":["text"],"output_modalities":["text"]},"meta":{"vocab_type":0,"n_vocab":0,"n_ctx":256,"n_ctx_train":0,"n_embd":0,"n_params":0,"size":0,"ftype":""}},{"id":"gpt-4o","object":"model","created":1700000000,"owned_by":"llm-server","type":"model","display_name":"gpt-4o","created_at":"2023-11-14T22:13:20Z","architecture":{"input_modalities":["text"],"output_modalities":["text"]},"meta":{"vocab_type":0,"n_vocab":0,"n_ctx":256,"n_ctx_train":0,"n_embd":0,"n_params":0,"size":0,"ftype":""}}],"first_id":"org/fake","last_id":"gpt-4o","has_more":false}
    "#);
}

#[tokio::test]
async fn an_id_with_a_slash_is_found_plain_and_encoded() {
    let server = Server::ready();
    insta::assert_snapshot!(server.show_get("/v1/models/org/fake").await, @r#"
    200 OK
    content-type: application/json

    {"id":"org/fake","object":"model","created":1700000000,"owned_by":"llm-server","type":"model","display_name":"org/fake","created_at":"2023-11-14T22:13:20Z","architecture":{"input_modalities":["text"],"output_modalities":["text"]},"meta":{"vocab_type":0,"n_vocab":0,"n_ctx":256,"n_ctx_train":0,"n_embd":0,"n_params":0,"size":0,"ftype":""}}
    "#);
    assert_eq!(
        server.get("/v1/models/org%2Ffake").await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn an_unknown_id_is_not_found() {
    let server = Server::ready();
    insta::assert_snapshot!(server.show_get("/v1/models/gpt-4o").await, @r#"
    404 Not Found
    content-type: application/json

    {"error":{"message":"the model `gpt-4o` does not exist; this server serves `org/fake`","type":"invalid_request_error","param":"model","code":"model_not_found"}}
    "#);
    assert_eq!(
        server.get("/v1/models/%ff").await.status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_request_may_name_the_model_an_alias_or_nothing() {
    let server = with_aliases(&["gpt-4o"]);
    for model in [json!(null), json!("org/fake"), json!("gpt-4o")] {
        let answer = value(server.chat("hi", json!({"model": model})).await).await;
        assert_eq!(answer["model"], "org/fake");
    }
    let body = json!({"model": "gpt-5", "prompt": "a\n"});
    insta::assert_snapshot!(server.show_post("/v1/completions", body).await, @r#"
    404 Not Found
    content-type: application/json

    {"error":{"message":"the model `gpt-5` does not exist; this server serves `org/fake`","type":"invalid_request_error","param":"model","code":"model_not_found"}}
    "#);
}

#[tokio::test]
async fn a_star_among_the_aliases_accepts_every_name() {
    let server = with_aliases(&["*"]);
    let response = server.chat("hi", json!({"model": "whatever"})).await;
    assert_eq!(response.status(), StatusCode::OK);
}
