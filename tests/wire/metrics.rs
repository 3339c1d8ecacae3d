//! `GET /metrics` at every stage of a server's life, and what it counts by the names of routes and keys.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use llm_server::{api::Stage, engine::task::Pooling};
use serde_json::json;

use crate::support::{Reader, Server, Setup, chat_body, key, post, text};

async fn metrics(server: &Server) -> String {
    text(server.get("/metrics").await).await
}

#[tokio::test]
async fn metrics_are_text_that_prometheus_reads() {
    let response = Server::ready().get("/metrics").await;
    assert_eq!(response.status(), StatusCode::OK);
    let kind = &response.headers()["content-type"];
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
}

#[tokio::test]
async fn a_server_that_loads_or_drains_says_so() {
    let server = Server::ready();
    let ready = metrics(&server).await;
    assert!(ready.contains("\nllm_server_stage{stage=\"ready\"} 1\n"));
    assert!(ready.contains("fingerprint=\"fp_test\",model=\"org/fake\""));

    server.stage.send_replace(Stage::Draining);
    let draining = metrics(&server).await;
    assert!(draining.contains("\nllm_server_stage{stage=\"draining\"} 1\n"));
    assert!(draining.contains("\nllm_server_requests_running 0\n"));

    let server = Server::ready();
    server.stage.send_replace(Stage::Loading { percent: 40 });
    let loading = metrics(&server).await;
    assert!(loading.contains("\nllm_server_stage{stage=\"loading\"} 1\n"));
    assert!(loading.contains("\nllm_server_load_progress_ratio 0.4\n"));
    assert!(!loading.contains("llm_server_requests_running"));
    let chat = server.chat("hi", json!({})).await;
    assert_eq!(chat.status(), StatusCode::SERVICE_UNAVAILABLE);
    let refused = r#"outcome="model_loading",route="/v1/chat/completions"} 1"#;
    assert!(metrics(&server).await.contains(refused));
}

#[tokio::test]
async fn requests_are_counted_by_key_and_a_wrong_key_has_no_name() {
    let server = Setup {
        keys: vec![key("sk-1"), key("sk-2")],
        ..Setup::default()
    }
    .start();
    assert_eq!(
        server.get("/metrics").await.status(),
        StatusCode::UNAUTHORIZED
    );
    let ask = |key: &'static str| {
        let mut request = post(
            "/v1/chat/completions",
            chat_body("a", json!({})).to_string(),
        );
        let headers = request.headers_mut();
        headers.insert("x-api-key", key.parse().unwrap());
        server.send(request)
    };
    for key in ["sk-1", "sk-1", "sk-2", "sk-3"] {
        text(ask(key).await).await;
    }
    let request = Request::get("/metrics").header("x-api-key", "sk-1");
    let metrics = server.send(request.body(Body::empty()).unwrap()).await;
    let metrics = text(metrics).await;
    let counts: Vec<_> = metrics
        .lines()
        .filter(|line| line.starts_with("llm_server_requests_total{") && line.contains("chat"))
        .collect();
    let count = |outcome: &str| {
        let of = counts.iter().filter(|line| line.contains(outcome));
        let mut values: Vec<_> = of.map(|line| line.rsplit_once(' ').unwrap().1).collect();
        values.sort_unstable();
        values
    };
    assert_eq!(count("outcome=\"stop\""), ["1", "2"], "{counts:?}");
    assert_eq!(count("outcome=\"invalid_api_key\""), ["1"], "{counts:?}");
    // The tests' keys are called as they read; a wrong one is not told.
    assert!(counts.contains(&r#"llm_server_requests_total{key="sk-1",model="org/fake",outcome="stop",route="/v1/chat/completions"} 2"#));
    assert!(!metrics.contains("sk-3"));
    let nameless = "{key=\"none\",model=\"org/fake\",outcome=\"invalid_api_key\"";
    assert!(metrics.contains(nameless), "{counts:?}");
}

#[tokio::test]
async fn paths_that_are_not_there_share_one_label() {
    let server = Server::ready();
    for path in ["/a", "/b", "/c"] {
        server.get(path).await;
    }
    let metrics = metrics(&server).await;
    assert!(metrics.contains(r#"outcome="unknown_url",route="none"} 3"#));
}

#[tokio::test]
async fn an_embedder_counts_what_it_reads_and_has_no_caches() {
    let reader = Reader::ready(Pooling::Mean);
    let body = json!({"input": ["abc", "de"]});
    let answer = reader.post("/v1/embeddings", body).await;
    assert_eq!(answer.status(), StatusCode::OK);
    // The engine tells after the step, the answer is sent in it.
    let metrics = loop {
        let metrics = text(reader.get("/metrics").await).await;
        if !metrics.contains("\nllm_server_prompt_tokens_total 0\n") {
            break metrics;
        }
        tokio::task::yield_now().await;
    };
    assert!(metrics.contains("\nllm_server_prompt_tokens_total 5\n"));
    assert!(metrics.contains("\nllm_server_queue_wait_seconds_count 1\n"));
    assert!(metrics.contains(r#"outcome="ok",route="/v1/embeddings"} 1"#));
    assert!(!metrics.contains("llm_server_kv_") && !metrics.contains("llm_server_prefix_"));
}
