//! What is served and how: the plan, and the fields that llama-server's clients read.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use llm_server::api::Stage;
use serde_json::json;

use crate::support::{CONTEXT, Server, Setup, key, value};

#[tokio::test]
async fn props_say_what_is_served_and_where_it_lies() {
    let setup = Setup {
        plan: json!({"devices": [{"name": "CUDA0", "used": 7, "left": -1}]}),
        ..Setup::default()
    };
    let shown = setup.start().show_get("/props").await;
    let shown = shown.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    insta::assert_snapshot!(shown, @r#"
    200 OK
    content-type: application/json

    {"model":"org/fake","kind":"chat","context":256,"parallel":2,"system_fingerprint":"fp_test","version":{"version":"0.0.0"},"plan":{"devices":[{"name":"CUDA0","used":7,"left":-1}]},"gpus":[],"default_generation_settings":{"n_ctx":256,"params":{"seed":4294967295,"temperature":0.8,"dynatemp_range":0.0,"dynatemp_exponent":1.0,"top_k":40,"top_p":0.95,"min_p":0.05,"typical_p":1.0,"top_n_sigma":-1.0,"xtc_probability":0.0,"xtc_threshold":0.1,"repeat_last_n":64,"repeat_penalty":1.0,"presence_penalty":0.0,"frequency_penalty":0.0,"dry_multiplier":0.0,"dry_base":1.75,"dry_allowed_length":2,"dry_penalty_last_n":-1,"dry_sequence_breakers":["\n",":","\"","*"],"mirostat":0,"mirostat_tau":5.0,"mirostat_eta":0.1,"max_tokens":-1,"n_predict":-1,"stop":[],"ignore_eos":false}},"total_slots":2,"model_alias":"org/fake","model_ftype":"","model_path":"org/fake","modalities":{"vision":false,"audio":false},"chat_template":"{% for message in messages %}{{ message.content }}{{ '\\n' }}{% endfor %}","chat_template_caps":{"supports_tools":true,"supports_tool_calls":true,"supports_parallel_tool_calls":false,"supports_system_role":true,"supports_reasoning_effort":false},"build_info":"llm-server VERSION","endpoint_slots":true,"endpoint_props":false,"endpoint_metrics":true,"is_sleeping":false}
    "#);
}

#[tokio::test]
async fn llama_servers_clients_find_the_context_of_one_sequence_and_the_template() {
    let props = value(Server::ready().get("/props").await).await;
    assert_eq!(props["default_generation_settings"]["n_ctx"], CONTEXT);
    assert_eq!(props["total_slots"], 2);
    assert_eq!(props["model_alias"], "org/fake");
    let template = props["chat_template"].as_str().unwrap();
    assert!(template.starts_with("{% for message in messages %}"));
}

#[tokio::test]
async fn props_need_a_key_and_a_loaded_model_and_cannot_be_changed() {
    let server = Setup {
        keys: vec![key("sk-1")],
        ..Setup::default()
    }
    .start();
    let status = server.get("/props").await.status();
    assert_eq!(status, StatusCode::UNAUTHORIZED);

    let ask = |method: &str| {
        let request = Request::builder().method(method).uri("/props");
        let request = request.header("authorization", "Bearer sk-1");
        server.send(request.body(Body::empty()).unwrap())
    };
    assert_eq!(ask("GET").await.status(), StatusCode::OK);
    assert_eq!(ask("POST").await.status(), StatusCode::BAD_REQUEST);
    server.stage.send_replace(Stage::Loading { percent: 1 });
    let status = ask("GET").await.status();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}
