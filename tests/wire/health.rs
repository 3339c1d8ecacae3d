//! Health and version through the server's life.

use axum::http::StatusCode;
use llm_server::api::Stage;

use crate::support::{Server, Setup};

#[tokio::test]
async fn health_follows_the_stage_and_asks_for_no_key() {
    let server = Setup { keys: vec!["sk-1".to_owned()], ..Setup::default() }.start();
    insta::assert_snapshot!(server.show_get("/health").await, @"");
    server.stage.send_replace(Stage::Loading { percent: 40 });
    insta::assert_snapshot!(server.show_get("/health").await, @"");
    insta::assert_snapshot!(server.show_get("/health/live").await, @"");
    server.stage.send_replace(Stage::Draining);
    insta::assert_snapshot!(server.show_get("/health/ready").await, @"");
    insta::assert_snapshot!(server.show_get("/health/live").await, @"");
    server.stage.send_replace(Stage::Failed);
    insta::assert_snapshot!(server.show_get("/health/live").await, @"");
}

#[tokio::test]
async fn everything_else_waits_for_the_model() {
    let server = Server::ready();
    server.stage.send_replace(Stage::Loading { percent: 0 });
    for path in ["/v1/models", "/v1/models/org/fake", "/version"] {
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
    insta::assert_snapshot!(Server::ready().show_get("/version").await, @"");
}
