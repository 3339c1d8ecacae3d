//! What the page is given: itself without a key, its data with one, and nothing of what requests say.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use llm_server::api::Stage;
use serde_json::{Value, json};

use crate::support::{PANIC, Server, Setup, chat_body, key, post, text, value};

async fn status(server: &Server) -> Value {
    let response = server.get("/status").await;
    assert_eq!(response.status(), StatusCode::OK);
    value(response).await
}

#[tokio::test]
async fn a_browser_gets_the_page_with_its_policy_and_a_program_the_way() {
    let server = Setup {
        keys: vec![key("sk-1")],
        ..Setup::default()
    }
    .start();
    let browser = Request::get("/").header("accept", "text/html,*/*;q=0.8");
    let page = server.send(browser.body(Body::empty()).unwrap()).await;
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(
        page.headers()["vary"].to_str().unwrap().split(',').next(),
        Some("accept")
    );
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(text(page).await.starts_with("<!doctype html>"));

    let way = value(server.get("/").await).await;
    assert_eq!(way["endpoints"]["chat"], "/v1/chat/completions");
    let refused = server.get("/status").await.status();
    assert_eq!(refused, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_status_follows_the_stage_and_is_always_an_answer() {
    let server = Server::ready();
    let ready = status(&server).await;
    assert_eq!(ready["stage"], "ready");
    let serving = &ready["serving"];
    assert_eq!(serving["system_fingerprint"], "fp_test");
    assert_eq!(
        (&serving["sequences"], &serving["queue"]),
        (&json!(2), &json!(4))
    );
    assert_eq!(serving["kv"], json!({"used": 0, "capacity": 512}));
    assert_eq!(serving["gpus"], json!([]));

    server.stage.send_replace(Stage::Loading { percent: 40 });
    let loading = status(&server).await;
    assert_eq!(
        (&loading["stage"], &loading["percent"]),
        (&json!("loading"), &json!(40))
    );
    assert_eq!(loading["serving"], Value::Null);
    server.stage.send_replace(Stage::Failed);
    assert_eq!(status(&server).await["stage"], "failed");
}

#[tokio::test]
async fn requests_are_told_by_what_became_of_them() {
    let server = Server::ready();
    server.chat("a secret", json!({"max_tokens": 3})).await;
    server.chat("", json!({"messages": []})).await;
    server.chat(PANIC, json!({})).await;
    // Questions about the server are no requests to the model.
    server.get("/v1/models").await;
    server.get("/nowhere").await;
    server.idle().await;
    let told = status(&server).await;
    let recent = told["recent"].as_array().unwrap();
    let outcomes: Vec<_> = recent
        .iter()
        .map(|it| it["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["server_error", "invalid_value", "length"]);
    let answered = &recent[2];
    assert_eq!(answered["route"], "/v1/chat/completions");
    assert_eq!(
        (&answered["completion_tokens"], &answered["status"]),
        (&json!(3), &json!(200))
    );
    assert!(!told.to_string().contains("secret"));
}

#[tokio::test]
async fn what_still_runs_in_a_drain_is_told() {
    let (fake, permits) = crate::support::gated(2);
    let server = Setup {
        fake,
        ..Setup::default()
    }
    .start();
    status(&server).await;
    let stream = post(
        "/v1/chat/completions",
        chat_body("hello", json!({"stream": true})).to_string(),
    );
    let running = tokio::spawn({
        let router = server.router.clone();
        async move { tower::ServiceExt::oneshot(router, stream).await }
    });
    while server.engine.busy().running == 0 {
        tokio::task::yield_now().await;
    }
    server.stage.send_replace(Stage::Draining);
    let draining = status(&server).await;
    assert_eq!(draining["stage"], "draining");
    assert_eq!(draining["serving"]["running"], 1);
    drop(permits);
    running.await.unwrap().unwrap();
}
