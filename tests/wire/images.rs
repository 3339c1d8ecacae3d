//! Images in messages, as far as no projector is needed: what is refused, where it stood, and what is left of a request.

use axum::http::StatusCode;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use llm_server::engine::{
    media::{Attention, Image, Layout},
    senses::{self, Faculties, Medium, Segment, Senses, Unperceived},
};
use serde_json::{Value, json};
use std::{convert::Infallible, io::Cursor, sync::Arc};

use crate::support::{Server, Setup, text, value};

/// Sees 20 rows between two marks in every picture but black ones.
fn eyes() -> Senses {
    let faculties = Faculties {
        sees: true,
        hears: None,
    };
    let look = |medium: &Medium| {
        let Medium::Picture(picture) = medium else {
            return Err(Unperceived::Refused("it is no picture".to_owned()));
        };
        if picture.rgb.iter().all(|&shade| shade == 0) {
            return Err(Unperceived::Refused("it is too dark".to_owned()));
        }
        let (line, causal) = (Layout::Line, Attention::Causal);
        let image = Image::new(&picture.digest, 0, line, causal, 1, vec![0.0; 20]).unwrap();
        Ok(vec![
            Segment::Text(vec![60]),
            Segment::Image(Arc::new(image)),
            Segment::Text(vec![62]),
        ])
    };
    let started = senses::start(1 << 20, move || Ok::<_, Infallible>((faculties, look)));
    started.unwrap_or_else(|never| match never {})
}

pub(crate) fn seeing_setup() -> Setup {
    Setup {
        senses: Some(eyes()),
        ..Setup::default()
    }
}

fn seeing() -> Server {
    seeing_setup().start()
}

pub(crate) fn png(shade: u8, side: u32) -> Vec<u8> {
    let pixels = image::RgbImage::from_pixel(side, side, image::Rgb([shade; 3]));
    let mut file = Cursor::new(Vec::new());
    pixels.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

pub(crate) fn url(file: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(file))
}

pub(crate) fn picture(url: &str) -> Value {
    json!({"type": "image_url", "image_url": {"url": url}})
}

pub(crate) fn words(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

pub(crate) fn message(parts: &[Value]) -> Value {
    json!({"messages": [{"role": "user", "content": parts}]})
}

pub(crate) async fn refusal(server: &Server, body: Value) -> String {
    let response = server.post("/v1/chat/completions", body).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let error = value(response).await;
    let (param, message) = (&error["error"]["param"], &error["error"]["message"]);
    let (param, message) = (param.as_str().unwrap(), message.as_str().unwrap());
    assert!(
        message.starts_with(param),
        "{param} is not what {message} is about"
    );
    message.to_owned()
}

pub(crate) async fn usage(server: &Server, body: Value) -> Value {
    let response = server.post("/v1/chat/completions", body).await;
    assert_eq!(response.status(), StatusCode::OK);
    value(response).await["usage"].clone()
}

#[tokio::test]
async fn a_model_without_a_projector_takes_no_images() {
    let server = Server::ready();
    let body = message(&[words("what is this?"), picture(&url(&png(200, 8)))]);
    insta::assert_snapshot!(refusal(&server, body).await, @"messages[0].content[1]: this model takes no images");
}

#[tokio::test]
async fn images_are_counted_and_taken_from_the_cache_the_second_time() {
    let server = seeing();
    let body = || message(&[words("look"), picture(&url(&png(200, 8))), words("hello")]);
    let first = usage(&server, body()).await;
    let again = usage(&server, body()).await;
    // 20 rows, the two marks around them, and the text that the template makes of the rest.
    assert_eq!(first["prompt_tokens"], again["prompt_tokens"]);
    assert_eq!(first["prompt_tokens_details"]["cached_tokens"], 0);
    let cached = again["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap();
    assert_eq!(cached, again["prompt_tokens"].as_u64().unwrap() - 1);
    let text = message(&[words("look"), words("hello")]);
    let text = usage(&server, text).await["prompt_tokens"]
        .as_u64()
        .unwrap();
    assert!((20..=22).contains(&(first["prompt_tokens"].as_u64().unwrap() - text)));
}

#[tokio::test]
async fn several_images_of_several_messages_keep_their_order() {
    let server = seeing();
    let (a, b) = (picture(&url(&png(200, 8))), picture(&url(&png(100, 8))));
    let body = |first: &Value, second: &Value| {
        json!({"messages": [
            {"role": "user", "content": [words("one"), first]},
            {"role": "assistant", "content": "fine"},
            {"role": "user", "content": [second, words("two")]},
        ]})
    };
    usage(&server, body(&a, &b)).await;
    let same = usage(&server, body(&a, &b)).await;
    let swapped = usage(&server, body(&b, &a)).await;
    let cached = |usage: &Value| {
        usage["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    assert!(cached(&same) > 40);
    assert!(cached(&swapped) < 20, "{swapped}");
}

#[tokio::test]
async fn what_is_wrong_with_an_image_is_said_where_it_stands() {
    let server = seeing();
    let one = |part: Value| refusal(&server, message(&[words("see"), part]));
    insta::assert_snapshot!(one(picture("https://example.org/cat.png")).await, @"messages[0].content[1].image_url.url: this server fetches no images; expected a data URL: data:image/png;base64,… (JPEG, PNG, WebP or GIF)");
    insta::assert_snapshot!(one(picture(&url(b"GIF98a is none"))).await, @"messages[0].content[1].image_url.url: this is no image that can be read; expected JPEG, PNG, WebP or GIF");
    insta::assert_snapshot!(one(picture(&url(&png(0, 8)))).await, @"messages[0].content[1].image_url.url: it is too dark");
    insta::assert_snapshot!(one(picture(&url(&png(9, 300)))).await, @"messages[0].content[1].image_url.url: an image of 300 × 300 pixels is larger than the 65536 pixels that this server takes");
    insta::assert_snapshot!(one(picture(&url(&vec![0; 20_000]))).await, @"messages[0].content[1].image_url.url: the image is larger than 16384 bytes");
    insta::assert_snapshot!(one(json!({"type": "image_url"})).await, @"messages[0].content[1].image_url.url: expected a data URL: data:image/png;base64,… (JPEG, PNG, WebP or GIF)");
    let detail =
        json!({"type": "image_url", "image_url": {"url": url(&png(9, 8)), "detail": "most"}});
    insta::assert_snapshot!(one(detail).await, @r#"messages[0].content[1].image_url.detail: expected "auto", "low", "high" or "original""#);
    insta::assert_snapshot!(one(json!({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}})).await, @"messages[0].content[1]: this model takes no audio, only text and images");
    insta::assert_snapshot!(one(json!({"type": "media_marker", "text": "x"})).await, @r#"messages[0].content[1].type: expected "text", "image_url" or "input_audio", got "media_marker""#);
    // And it still answers.
    usage(&server, message(&[words("hello")])).await;
}

#[tokio::test]
async fn more_images_than_allowed_are_refused() {
    let server = seeing();
    let parts: Vec<_> = (0..4)
        .map(|shade| picture(&url(&png(shade + 1, 4))))
        .collect();
    insta::assert_snapshot!(refusal(&server, message(&parts)).await, @"messages[0].content[3]: more than the 3 images that a request may have");
    usage(&server, message(&parts[..3])).await;
}

#[tokio::test]
async fn an_url_may_stand_without_its_object_and_detail_is_honoured() {
    let server = seeing();
    let plain = json!({"type": "image_url", "image_url": url(&png(9, 8))});
    usage(&server, message(&[plain])).await;
    for detail in ["auto", "low", "high", "original"] {
        let part =
            json!({"type": "image_url", "image_url": {"url": url(&png(9, 8)), "detail": detail}});
        usage(&server, message(&[part])).await;
    }
}

#[tokio::test]
async fn more_tokens_of_images_than_the_context_holds_are_a_context_error() {
    let server = seeing();
    let parts: Vec<_> = (1..4).map(|shade| picture(&url(&png(shade, 4)))).collect();
    let messages: Vec<_> = (0..60)
        .map(|_| words(&"x".repeat(60)))
        .chain(parts)
        .collect();
    let response = server
        .post("/v1/chat/completions", message(&messages))
        .await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(text(response).await.contains("context_length_exceeded"));
}

#[tokio::test]
async fn props_tell_whether_the_model_sees() {
    for (server, sees) in [(seeing(), true), (Server::ready(), false)] {
        let props = value(server.get("/props").await).await;
        assert_eq!(props["modalities"]["vision"], sees);
    }
}

#[tokio::test]
async fn tools_may_answer_with_images() {
    let server = seeing();
    let tokens = |answer: &Value, name: &str| {
        let tokens = answer["usage"][name].as_u64();
        tokens.unwrap_or_else(|| panic!("{answer}"))
    };
    let (seen, dark) = (url(&png(200, 8)), url(&png(0, 8)));

    let openai = |url: &str| {
        let function = json!({"name": "look", "arguments": "{}"});
        json!({"messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "a", "content": [words("there"), picture(url)]},
        ]})
    };
    let answer = value(server.post("/v1/chat/completions", openai(&seen)).await).await;
    assert!(tokens(&answer, "prompt_tokens") > 22, "{answer}");
    insta::assert_snapshot!(refusal(&server, openai(&dark)).await, @"messages[2].content[1].image_url.url: it is too dark");

    let anthropic = |url: &str| {
        let data = url.split_once(',').unwrap().1;
        let source = json!({"type": "base64", "media_type": "image/png", "data": data});
        let result =
            json!([{"type": "text", "text": "there"}, {"type": "image", "source": source}]);
        json!({"model": "org/fake", "max_tokens": 4, "messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "look", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": result}]},
        ]})
    };
    let answer = value(server.post("/v1/messages", anthropic(&seen)).await).await;
    assert!(
        tokens(&answer, "input_tokens") + tokens(&answer, "cache_read_input_tokens") > 22,
        "{answer}"
    );
    let told = value(server.post("/v1/messages", anthropic(&dark)).await).await;
    insta::assert_snapshot!(told["error"]["message"].as_str().unwrap(), @"messages[2].content[0].content[1].source: it is too dark");

    let responses = |url: &str| {
        let output = json!([{"type": "input_text", "text": "there"}, {"type": "input_image", "image_url": url}]);
        json!({"input": [
            {"role": "user", "content": "go"},
            {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": output},
        ]})
    };
    let answer = value(server.post("/v1/responses", responses(&seen)).await).await;
    assert!(tokens(&answer, "input_tokens") > 22, "{answer}");
    let told = value(server.post("/v1/responses", responses(&dark)).await).await;
    insta::assert_snapshot!(told["error"]["message"].as_str().unwrap(), @"input[2].output[1].image_url: it is too dark");
}
