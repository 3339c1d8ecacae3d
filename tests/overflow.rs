//! A full context end to end: the real binary and the real small model at the smallest context there is.

#[path = "support/encoders.rs"]
mod encoders;
#[path = "support/server.rs"]
mod server;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use server::Server;

const SHIFT: &str = "engine = {context = 256, parallel = 2, threads = 1, overflow = 'shift}";

fn ask(server: &Server, path: &str, body: &Value) -> Value {
    let (status, text) = server.post(path, &body.to_string()).unwrap();
    assert_eq!(status, 200, "{text}\n{}", server.read_log());
    serde_json::from_str(&text).unwrap()
}

#[test]
fn an_answer_of_four_contexts_is_told_as_truncated_and_still_makes_sense() {
    let server = Server::start(&[SHIFT]);
    let body = json!({
        "prompt": "Once upon a time, in a small town by the sea,", "n_predict": 1024, "ignore_eos": true,
        "temperature": 0.7, "seed": 1, "n_keep": 8, "n_probs": 1,
    });
    let said = ask(&server, "/completion", &body);
    assert_eq!(said["tokens_predicted"], 1024);
    assert_eq!(
        (&said["truncated"], &said["stop_type"]),
        (&json!(true), &json!("limit"))
    );
    // Positions that were mixed up would make the model stammer: each quarter is as sure of itself as the first.
    let tokens = said["completion_probabilities"].as_array().unwrap();
    let logprob = |token: &Value| token["logprob"].as_f64().unwrap();
    let mean = |tokens: &[Value]| tokens.iter().map(logprob).sum::<f64>() / tokens.len() as f64;
    let quarters: Vec<_> = tokens.chunks(256).map(mean).collect();
    for quarter in &quarters {
        assert!(*quarter > -2.5, "{quarters:?}");
    }
    // A request beside and after it is answered as if nothing had been.
    let france = json!({"prompt": "The capital of France is", "n_predict": 3, "temperature": 0});
    assert!(
        ask(&server, "/completion", &france)["content"]
            .as_str()
            .unwrap()
            .contains("Paris")
    );
}

#[test]
fn a_prompt_that_is_too_long_loses_its_middle_and_the_answer_says_so() {
    let server = Server::start(&[SHIFT]);
    let prompt = format!(
        "{}The capital of France is",
        "seven cats and a dog ".repeat(100)
    );
    let body = json!({"prompt": prompt, "n_predict": 3, "temperature": 0, "n_keep": 16});
    let said = ask(&server, "/completion", &body);
    assert_eq!(said["truncated"], true);
    let evaluated = said["tokens_evaluated"].as_u64().unwrap();
    assert!((100..256).contains(&evaluated), "{evaluated}");
    assert!(
        said["content"].as_str().unwrap().contains("Paris"),
        "{said}"
    );
    let chat = json!({"messages": [{"role": "user", "content": prompt}], "max_tokens": 4});
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_mins(2)))
        .unwrap();
    let chat = chat.to_string();
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{chat}",
        chat.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("x-warning: the prompt is longer than the context: "),
        "{answer}"
    );
}

#[test]
fn without_it_a_full_context_is_an_error_and_its_parameters_are_refused() {
    let server = Server::start(&["engine = {context = 256, parallel = 1, threads = 1}"]);
    for (path, field) in [
        ("/completion", "n_keep"),
        ("/completion", "n_discard"),
        ("/v1/completions", "n_keep"),
    ] {
        let body = json!({"prompt": "Hi", field: 5});
        let (status, text) = server.post(path, &body.to_string()).unwrap();
        assert!(
            status == 400
                && text.contains(&format!("{field}: a context that is full is not shifted")),
            "{text}"
        );
    }
    let body = json!({"prompt": "seven cats and a dog ".repeat(100)});
    let (status, text) = server.post("/completion", &body.to_string()).unwrap();
    assert!(
        status == 400 && text.contains("context_length_exceeded"),
        "{text}"
    );
    let body = json!({"prompt": "Once", "n_predict": 1000, "ignore_eos": true});
    let said = ask(&server, "/completion", &body);
    assert_eq!(said["truncated"], true);
    assert!(said["tokens_predicted"].as_u64().unwrap() < 256);
}

#[test]
fn a_model_whose_state_cannot_shift_is_refused_at_start() {
    let mut server = Server::spawn_file(
        &encoders::hybrid(),
        &["engine = {context = 256, overflow = 'shift}"],
    );
    let status = server.wait(Duration::from_mins(2));
    let log = server.read_log();
    assert_eq!(status.code(), Some(78), "{log}");
    assert!(
        log.contains("engine.overflow: 'shift needs a model that sees its whole context"),
        "{log}"
    );
}
