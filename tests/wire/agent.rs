//! Codex from end to end: a model that answers by script, in the scheduler and behind the routes of the real server.

use std::{
    env, fs,
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use llm_server::engine::fake::Fake;
use serde_json::json;
use tokio::{net::TcpListener, task::spawn_blocking};

use crate::support::{Setup, post, value};

const TEMPLATE: &str = include_str!("../templates/echo.jinja");
/// The model repeats it, so that it calls the tool; then it repeats what the tool said.
const SCRIPT: &str =
    r#"<tool_call>{"name": "exec_command", "arguments": {"cmd": "expr 6 '*' 7"}}</tool_call>"#;

fn setup() -> Setup {
    let mut setup = Setup {
        fake: Fake::new(1, 1 << 18),
        template: TEMPLATE,
        ..Setup::default()
    };
    setup.limits.body_bytes = 1 << 20;
    setup
}

#[tokio::test]
async fn the_scripted_model_calls_a_tool_and_repeats_its_result() {
    let server = setup().start();
    let tool =
        json!({"type": "function", "name": "exec_command", "parameters": {"type": "object"}});
    let ask = async |more: serde_json::Value| {
        let mut body = json!({"tools": [tool]});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        value(server.send(post("/v1/responses", body.to_string())).await).await
    };
    let answer = ask(json!({"input": SCRIPT})).await;
    let call = &answer["output"][0];
    assert_eq!(call["name"], "exec_command", "{answer}");
    let output = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "said:\n42\n"});
    let answer = ask(json!({"input": [output], "previous_response_id": answer["id"]})).await;
    assert_eq!(answer["output"][0]["content"][0]["text"], "42", "{answer}");
}

/// `CODEX`: how it is started, such as the path of `codex`, of the npm package `@openai/codex`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Codex: see docs/api/responses.md"]
async fn codex_runs_a_command_for_the_model_and_tells_what_it_said() {
    let codex = env::var_os("CODEX").expect("CODEX names Codex's executable");
    let server = setup().start();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(axum::serve(listener, server.router.clone()).into_future());

    let home = tempfile::tempdir().unwrap();
    let work = tempfile::tempdir().unwrap();
    let config = format!(
        "model = \"org/fake\"\nmodel_provider = \"here\"\n\n[model_providers.here]\nname = \"here\"\n\
         base_url = \"http://{address}/v1\"\nwire_api = \"responses\"\n"
    );
    fs::write(home.path().join("config.toml"), config).unwrap();
    let answer = home.path().join("answer");
    let mut run = Command::new("timeout");
    run.arg("300")
        .arg(codex)
        .args(["exec", "--skip-git-repo-check"])
        // Nothing but `expr` is run, and a sandbox inside a sandbox seldom works.
        .arg("--dangerously-bypass-approvals-and-sandbox")
        .arg("--output-last-message")
        .arg(&answer)
        .arg(SCRIPT)
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path())
        .env("CODEX_HOME", home.path())
        .env("NO_PROXY", "127.0.0.1")
        .current_dir(work.path())
        .stdin(Stdio::null());
    let output = spawn_blocking(move || run.output()).await.unwrap().unwrap();
    serving.abort();
    let said = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}");
    assert_eq!(fs::read_to_string(answer).unwrap().trim(), "42", "{said}");
}
