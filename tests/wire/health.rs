//! Health and version through the server's life.

use axum::http::StatusCode;
use llm_server::api::Stage;

use crate::support::{Server, Setup, key};

#[tokio::test]
async fn health_follows_the_stage_and_asks_for_no_key() {
    let server = Setup {
        keys: vec![key("sk-1")],
        ..Setup::default()
    }
    .start();
    insta::assert_snapshot!(server.show_get("/health").await, @r#"
    200 OK
    content-type: application/json

    {"status":"ok"}
    "#);
    server.stage.send_replace(Stage::Loading { percent: 40 });
    insta::assert_snapshot!(server.show_get("/health").await, @r#"
    503 Service Unavailable
    content-type: application/json
    retry-after: 1
    retry-after-ms: 1000

    {"error":{"message":"Loading model","type":"unavailable_error","param":null,"code":"model_loading"}}
    "#);
    insta::assert_snapshot!(server.show_get("/health/live").await, @r#"
    200 OK
    content-type: application/json

    {"status":"loading"}
    "#);
    server.stage.send_replace(Stage::Draining);
    insta::assert_snapshot!(server.show_get("/health/ready").await, @r#"
    503 Service Unavailable
    content-type: application/json
    retry-after: 2
    retry-after-ms: 2000

    {"error":{"message":"the server is shutting down","type":"unavailable_error","param":null,"code":"shutting_down"}}
    "#);
    insta::assert_snapshot!(server.show_get("/health/live").await, @r#"
    200 OK
    content-type: application/json

    {"status":"draining"}
    "#);
    server.stage.send_replace(Stage::Failed);
    insta::assert_snapshot!(server.show_get("/health/live").await, @r#"
    503 Service Unavailable
    content-type: application/json
    retry-after: 5
    retry-after-ms: 5000

    {"error":{"message":"the engine has stopped; the server is about to restart","type":"unavailable_error","param":null,"code":"engine_stopped"}}
    "#);
}

#[tokio::test]
async fn everything_else_waits_for_the_model() {
    let server = Server::ready();
    server.stage.send_replace(Stage::Loading { percent: 0 });
    for path in ["/v1/models", "/v1/models/org/fake", "/version", "/props"] {
        let status = server.get(path).await.status();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    for path in ["/v1/chat/completions", "/v1/completions"] {
        let status = server.post(path, serde_json::json!({})).await.status();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
}

#[tokio::test]
async fn version_is_what_the_server_was_started_with() {
    insta::assert_snapshot!(Server::ready().show_get("/version").await, @r#"
    200 OK
    content-type: application/json

    {"version":"0.0.0"}
    "#);
}
