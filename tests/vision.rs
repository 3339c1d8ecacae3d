//! Images end to end: the real binary and the real small model behind synthetic projectors, of which one kills.

#[path = "support/encoders.rs"]
mod encoders;
#[path = "support/perceived.rs"]
mod perceived;
#[path = "support/server.rs"]
mod server;

use std::{io::Cursor, thread, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::{DynamicImage, ImageFormat, RgbImage};
use serde_json::{Value, json};

use perceived::{alternatives, ask, distance, question};
use server::Server;

/// Of the small model.
const WIDTH: usize = 576;
const ENGINE: &str = "engine = {context = 1024, parallel = 3}";

fn seeing(kind: &str, settings: &[&str]) -> Server {
    Server::start_seeing(&encoders::projector(kind, WIDTH), settings)
}

fn pattern(seed: u32) -> DynamicImage {
    RgbImage::from_fn(50, 30, |x, y| {
        let shade = |of: u32| u8::try_from((of * seed) % 256).unwrap();
        image::Rgb([shade(x * 5), shade(y * 8), shade(x + y)])
    })
    .into()
}

fn file(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image.write_to(&mut file, format).unwrap();
    file.into_inner()
}

fn picture(file: &[u8]) -> Value {
    let url = format!("data:image/any;base64,{}", STANDARD.encode(file));
    json!({"type": "image_url", "image_url": {"url": url}})
}

#[test]
fn lossless_formats_of_one_picture_are_the_same_picture_and_all_are_seen() {
    let server = seeing("line", &[ENGINE]);
    let image = pattern(3);
    let seen = |format| alternatives(&ask(&server, &question(&[picture(&file(&image, format))])));
    let png = seen(ImageFormat::Png);
    assert!(distance(&png, &seen(ImageFormat::WebP)) < 0.01);
    // 256 colours and a lossy one: near, yet not the same.
    for format in [ImageFormat::Gif, ImageFormat::Jpeg] {
        assert!(seen(format).iter().all(|(_, logprob)| logprob.is_finite()));
    }
    let other = alternatives(&ask(
        &server,
        &question(&[picture(&file(&pattern(7), ImageFormat::Png))]),
    ));
    assert!(distance(&png, &other) > 0.05, "{png:?} {other:?}");
}

#[test]
fn an_image_that_must_be_seen_whole_is() {
    let server = seeing("whole", &[ENGINE]);
    let body = question(&[picture(&file(&pattern(3), ImageFormat::Png))]);
    let first = ask(&server, &body);
    let again = ask(&server, &body);
    assert!(distance(&alternatives(&first), &alternatives(&again)) < 0.05);
    let cached = &again["usage"]["prompt_tokens_details"]["cached_tokens"];
    assert!(cached.as_u64().unwrap() > 16, "{again}");
}

#[test]
fn a_hybrid_model_with_images_in_two_dimensions_goes_on_from_its_cache() {
    let projector = encoders::projector("grid", 256);
    let server = Server::start_seeing_file(&encoders::hybrid(), &projector, &[ENGINE]);
    let (one, two) = (
        file(&pattern(3), ImageFormat::Png),
        file(&pattern(7), ImageFormat::Png),
    );
    let text = |text: &str| json!({"type": "text", "text": text});
    let mut body = question(&[text("Look here."), picture(&one)]);
    ask(&server, &body);
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": "I see."}));
    messages
        .push(json!({"role": "user", "content": [text("And here?"), picture(&two), text("So?")]}));
    let warm = ask(&server, &body);
    assert!(
        warm["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
            > 0,
        "{warm}"
    );
    body["cache_prompt"] = false.into();
    let cold = ask(&server, &body);
    assert_eq!(cold["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert!(
        distance(&alternatives(&warm), &alternatives(&cold)) < 0.02,
        "{warm}\n{cold}"
    );
}

#[test]
fn reproducible_is_the_same_bits_beside_streams_and_from_the_cache() {
    let server = seeing("line", &[ENGINE, "engine.reproducible = true"]);
    let mut body = question(&[picture(&file(&pattern(5), ImageFormat::Png))]);
    body["max_tokens"] = 24.into();
    let text =
        json!({"prompt": "Once upon a time", "max_tokens": 60, "temperature": 0, "logprobs": 2});
    let words = |server: &Server| {
        let (status, answer) = server.post("/v1/completions", &text.to_string()).unwrap();
        assert_eq!(status, 200);
        serde_json::from_str::<Value>(&answer).unwrap()["choices"].clone()
    };
    let alone = words(&server);
    let first = ask(&server, &body)["choices"].clone();
    thread::scope(|scope| {
        let streams: Vec<_> = (0..4).map(|_| scope.spawn(|| words(&server))).collect();
        assert_eq!(ask(&server, &body)["choices"], first);
        for stream in streams {
            assert_eq!(stream.join().unwrap(), alone);
        }
    });
}

#[test]
fn props_and_the_fingerprint_tell_of_the_projector() {
    let get = |server: &Server, path| {
        let (_, text) = server.get(path).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let server = seeing("line", &[ENGINE]);
    let props = get(&server, "/props");
    assert_eq!(props["modalities"], json!({"vision": true, "audio": false}));
    let devices = props["plan"]["devices"].as_array().unwrap();
    let bytes: u64 = devices
        .iter()
        .map(|device| device["projector"].as_u64().unwrap())
        .sum();
    let weights = encoders::projector("line", WIDTH).metadata().unwrap().len();
    assert!(bytes >= weights - 4096, "{bytes} of {weights}");
    let blind = Server::start(&[ENGINE]);
    assert_ne!(
        get(&server, "/version")["system_fingerprint"],
        get(&blind, "/version")["system_fingerprint"]
    );
}

#[test]
fn a_projector_that_kills_is_refused_at_start_and_takes_nobody_along() {
    let mut server = Server::spawn_seeing(&encoders::projector("deadly", WIDTH), &[ENGINE]);
    let status = server.wait(Duration::from_mins(2));
    let log = server.read_log();
    assert_eq!(status.code(), Some(65), "{log}");
    assert!(
        log.contains("a trial image or sound ended the process that tried it"),
        "{log}"
    );
    assert!(!log.contains("core dumped by the server"), "{log}");
}

#[test]
fn a_projector_for_another_width_and_a_model_as_a_projector_are_refused_at_start() {
    for (file, why) in [
        (
            encoders::projector("line", 64),
            "mismatch between text model",
        ),
        (
            server::models().join(model_file()),
            "this is no projector but a model",
        ),
    ] {
        let mut server = Server::spawn_seeing(&file, &[ENGINE]);
        let status = server.wait(Duration::from_mins(2));
        let log = server.read_log();
        assert_eq!(status.code(), Some(65), "{log}");
        assert!(log.contains(why), "{log}");
    }
}

fn model_file() -> String {
    server::fetch_model();
    let entries = std::fs::read_dir(server::models()).unwrap().flatten();
    entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .find(|name| name.starts_with(server::MODEL))
        .unwrap()
}
