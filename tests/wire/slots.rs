//! `POST /slots/{id}`: a sequence's state saved, erased, restored; llama-server's shapes, and a key's files its own.

use std::{fs, path::Path};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use llm_server::engine::{
    fake::Fake,
    state::{Identity, Places},
};
use serde_json::{Value, json};

use crate::{
    life::until_running,
    support::{CONTEXT, Server, Setup, gated, key, value},
};

fn setup(folder: &Path) -> Setup {
    Setup {
        fake: Fake::new(2, CONTEXT),
        places: Places {
            identity: Identity::new([("model", "fake".into())]),
            archive: None,
            slots: Some(folder.to_owned()),
        },
        ..Setup::default()
    }
}

/// The answer without its times.
async fn act(server: &Server, path: &str, body: Value) -> String {
    let response = server.post(path, body).await;
    let status = response.status().as_u16();
    let mut answer = value(response).await;
    if let Some(Value::Object(timings)) = answer.get_mut("timings") {
        for (_, time) in timings {
            assert!(time.as_f64().unwrap() > 0.0);
            *time = "TIME".into();
        }
    }
    if let Some(error) = answer.get_mut("error") {
        answer = error["message"].take();
    }
    format!("{status} {answer}")
}

async fn complete(server: &Server) -> u64 {
    let prompt = format!("{}\n", "x".repeat(100));
    let body = json!({"prompt": prompt, "n_predict": 3});
    let answer = value(server.post("/completion", body).await).await;
    assert_eq!(answer["content"], "xxx");
    answer["timings"]["cache_n"].as_u64().unwrap()
}

#[tokio::test]
async fn a_sequence_is_saved_erased_and_restored_in_llama_servers_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let server = setup(folder.path()).start();
    assert_eq!(complete(&server).await, 0);
    let slots = value(server.get("/slots").await).await;
    let id = usize::from(slots[0]["n_prompt_tokens"] == 0);
    let path = |action| format!("/slots/{id}?action={action}");
    let file = || json!({"filename": "one.bin"});
    let saved = act(&server, &path("save"), file()).await;
    let size = fs::metadata(folder.path().join("0000000000000000/one.bin"));
    let size = size.unwrap().len();
    let expected = format!(
        r#"200 {{"id_slot":{id},"filename":"one.bin","n_saved":103,"n_written":{size},"timings":{{"save_ms":"TIME"}}}}"#
    );
    assert_eq!(saved, expected);
    let erased = format!(r#"200 {{"id_slot":{id},"n_erased":103}}"#);
    assert_eq!(act(&server, &path("erase"), Value::Null).await, erased);
    assert_eq!(complete(&server).await, 0, "erased");
    for id in 0..2 {
        act(&server, &format!("/slots/{id}?action=erase"), Value::Null).await;
    }
    let restored = act(&server, &path("restore"), file()).await;
    let expected = format!(
        r#"200 {{"id_slot":{id},"filename":"one.bin","n_restored":103,"n_read":{size},"timings":{{"restore_ms":"TIME"}}}}"#
    );
    assert_eq!(restored, expected);
    assert_eq!(complete(&server).await, 100);
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let server = setup(folder.path()).start();
    complete(&server).await;
    let own = folder.path().join("0000000000000000");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("short"), "short").unwrap();
    fs::create_dir(own.join("folder")).unwrap();
    let mut told = Vec::new();
    for (path, body) in [
        ("/slots/2?action=save", json!({"filename": "a"})),
        ("/slots/x?action=save", json!({"filename": "a"})),
        ("/slots/-1?action=erase", json!({})),
        ("/slots/%FF?action=erase", json!({})),
        ("/slots/0?action=dance", json!({})),
        ("/slots/0?action=erase&action=dance", json!({})),
        ("/slots/0", json!({})),
        ("/slots/0?action=save", json!({})),
        ("/slots/0?action=save", json!({"filename": 7})),
        (
            "/slots/0?action=save",
            json!({"filename": "../../etc/passwd"}),
        ),
        ("/slots/0?action=restore", json!({"filename": ""})),
        ("/slots/0?action=restore", json!({"filename": "none"})),
        ("/slots/0?action=restore", json!({"filename": "short"})),
        ("/slots/0?action=restore", json!({"filename": "folder"})),
    ] {
        told.push(format!("{path}: {}", act(&server, path, body).await));
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    /slots/2?action=save: 400 "id: expected a sequence, 0–1, got \"2\""
    /slots/x?action=save: 400 "id: expected a sequence, 0–1, got \"x\""
    /slots/-1?action=erase: 400 "id: expected a sequence, 0–1, got \"-1\""
    /slots/%FF?action=erase: 400 "id: expected a sequence, 0–1, got \"�\""
    /slots/0?action=dance: 400 "action: expected \"save\", \"restore\" or \"erase\", got \"dance\""
    /slots/0?action=erase&action=dance: 400 "action: expected \"save\", \"restore\" or \"erase\", got \"dance\""
    /slots/0: 400 "action: expected \"save\", \"restore\" or \"erase\", but it is missing"
    /slots/0?action=save: 400 "filename: expected a string, but it is missing"
    /slots/0?action=save: 400 "filename: expected a string, got 7"
    /slots/0?action=save: 400 "filename: expected a name of 1–255 bytes without path separators, control characters, any of :*?\"<>|, \"..\", spaces at its ends or a dot at its end, got \"../../etc/passwd\""
    /slots/0?action=restore: 400 "filename: expected a name of 1–255 bytes without path separators, control characters, any of :*?\"<>|, \"..\", spaces at its ends or a dot at its end, got \"\""
    /slots/0?action=restore: 400 "filename: there is no such file"
    /slots/0?action=restore: 400 "filename: it is no saved state"
    /slots/0?action=restore: 400 "filename: it is no saved state"
    "#);
    // The one that holds nothing.
    let slots = value(server.get("/slots").await).await;
    let empty = usize::from(slots[1]["n_prompt_tokens"] == 0);
    let path = format!("/slots/{empty}?action=save");
    let refused = act(&server, &path, json!({"filename": "a"})).await;
    let expected = format!(r#"400 "id: sequence {empty} holds nothing of this API key's""#);
    assert_eq!(refused, expected);
    assert_eq!(complete(&server).await, 100, "nothing was lost");
}

#[tokio::test]
async fn it_waits_for_the_request_that_has_the_sequence_but_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (fake, permits) = gated(1);
    let mut setup = Setup {
        fake,
        ..setup(folder.path())
    };
    setup.limits.queue_wait = std::time::Duration::from_millis(50);
    let server = setup.start();
    let running = server.post("/completion", json!({"prompt": "ab\n", "n_predict": 2}));
    tokio::pin!(running);
    assert!(futures_util::poll!(&mut running).is_pending());
    until_running(&server, 1).await;
    let late = server.post("/slots/0?action=erase", json!({})).await;
    assert_eq!(late.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(permits);
    assert_eq!(running.await.status(), StatusCode::OK);
    let erased = act(&server, "/slots/0?action=erase", json!({})).await;
    assert_eq!(
        erased, r#"200 {"id_slot":0,"n_erased":4}"#,
        "the first was given up"
    );
}

#[tokio::test]
async fn a_key_saves_its_own_and_finds_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let server = Setup {
        fake: Fake::new(1, CONTEXT),
        keys: vec![key("sk-one"), key("sk-two")],
        ..setup(folder.path())
    }
    .start();
    let ask = async |secret: &str, path: &str, body: Value| {
        let request = Request::post(path).header("x-api-key", secret);
        let request = request.body(Body::from(body.to_string())).unwrap();
        let response = server.send(request).await;
        let status = response.status().as_u16();
        (status, value(response).await)
    };
    let file = || json!({"filename": "mine"});
    let (status, _) = ask("sk-one", "/completion", json!({"prompt": "ab\n"})).await;
    assert_eq!(status, 200);
    for (path, named) in [("save", "id"), ("erase", "id"), ("restore", "filename")] {
        let path = format!("/slots/0?action={path}");
        let (status, error) = ask("sk-two", &path, file()).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!(named)));
    }
    let (status, saved) = ask("sk-one", "/slots/0?action=save", file()).await;
    assert_eq!((status, &saved["n_saved"]), (200, &json!(5)));
    let (status, error) = ask("sk-two", "/slots/0?action=restore", file()).await;
    let why = &error["error"]["message"];
    assert_eq!(
        (status, why),
        (400, &json!("filename: there is no such file"))
    );
    let (status, _) = ask("sk-one", "/slots/0?action=restore", file()).await;
    assert_eq!(status, 200);
}
