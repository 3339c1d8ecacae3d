//! Sounds in messages and as files, as far as no projector is needed: what is refused, where it stood, how answers look.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use llm_server::engine::{
    media::{Attention, Image, Layout},
    senses::{self, Faculties, Medium, Segment, Senses, Unperceived},
};
use serde_json::{Value, json};
use std::{convert::Infallible, sync::Arc};

use crate::support::{Server, Setup, text, value};

const RATE: u32 = 16_000;

/// Hears 20 rows in every sound but silence.
fn ears() -> Senses {
    let faculties = Faculties {
        sees: false,
        hears: Some(RATE),
    };
    let listen = |medium: &Medium| {
        let Medium::Sound(sound) = medium else {
            return Err(Unperceived::Refused("it is no sound".to_owned()));
        };
        if sound.samples.iter().all(|&sample| sample == 0.0) {
            return Err(Unperceived::Refused("it is too quiet".to_owned()));
        }
        let (line, causal) = (Layout::Line, Attention::Causal);
        let image = Image::new(&sound.digest, 0, line, causal, 1, vec![0.0; 20]).unwrap();
        Ok(vec![Segment::Image(Arc::new(image))])
    };
    let started = senses::start(1 << 20, move || Ok::<_, Infallible>((faculties, listen)));
    started.unwrap_or_else(|never| match never {})
}

fn hearing() -> Server {
    let setup = Setup {
        senses: Some(ears()),
        ..Setup::default()
    };
    setup.start()
}

/// A WAV file of samples that are all the same.
fn wav(sample: i16, millis: u32) -> Vec<u8> {
    let frames = RATE * millis / 1000;
    let mut file = b"RIFF".to_vec();
    file.extend_from_slice(&(36 + 2 * frames).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend_from_slice(&RATE.to_le_bytes());
    file.extend_from_slice(&(2 * RATE).to_le_bytes());
    file.extend_from_slice(b"\x02\0\x10\0data");
    file.extend_from_slice(&(2 * frames).to_le_bytes());
    file.extend((0..frames).flat_map(|_| sample.to_le_bytes()));
    file
}

fn sound(file: &[u8]) -> Value {
    json!({"type": "input_audio", "input_audio": {"data": STANDARD.encode(file), "format": "wav"}})
}

fn words(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn message(parts: &[Value]) -> Value {
    json!({"messages": [{"role": "user", "content": parts}]})
}

fn form(fields: &[(&str, &str)], file: Option<&[u8]>) -> Request<Body> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part =
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    if let Some(file) = file {
        let head = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n";
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(file);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--b--\r\n");
    Request::post("/v1/audio/transcriptions")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(body.into())
        .unwrap()
}

async fn refusal(response: axum::response::Response) -> String {
    let status = response.status();
    let error = value(response).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
    let message = error["error"]["message"].as_str().unwrap();
    if let Some(param) = error["error"]["param"].as_str() {
        assert!(
            message.starts_with(param),
            "{param} is not what {message} is about"
        );
    }
    message.to_owned()
}

#[tokio::test]
async fn a_model_without_ears_takes_no_audio() {
    let server = Server::ready();
    let body = message(&[words("listen"), sound(&wav(9, 200))]);
    let refused = refusal(server.post("/v1/chat/completions", body).await).await;
    insta::assert_snapshot!(refused, @"messages[0].content[1]: this model takes no audio, only text");
    let response = server.send(form(&[], Some(&wav(9, 200)))).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    insta::assert_snapshot!(value(response).await["error"], @r#"{"message":"the model served here generates text and cannot hear: that needs a model with a projector of sounds (model.projector)","type":"invalid_request_error","param":null,"code":"unsupported_by_model"}"#);
}

#[tokio::test]
async fn sounds_are_counted_and_taken_from_the_cache_the_second_time() {
    let server = hearing();
    let usage = async |sample| {
        let body = message(&[words("listen"), sound(&wav(sample, 200)), words("hello")]);
        let response = server.post("/v1/chat/completions", body).await;
        assert_eq!(response.status(), StatusCode::OK);
        let usage = value(response).await["usage"].clone();
        let cached = usage["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap();
        (usage["prompt_tokens"].as_u64().unwrap(), cached)
    };
    let (tokens, none) = usage(9).await;
    assert!(tokens > 20 && none == 0, "{tokens} {none}");
    assert_eq!(usage(9).await, (tokens, tokens - 1));
    let (_, text) = usage(10).await;
    assert!(text < 20, "{text}: another sound is another prompt");
}

#[tokio::test]
async fn what_is_wrong_with_a_sound_is_said_where_it_stands() {
    let server = hearing();
    let one = async |file: &[u8]| {
        let body = message(&[words("hear"), sound(file)]);
        refusal(server.post("/v1/chat/completions", body).await).await
    };
    let whole = wav(9, 500);
    insta::assert_snapshot!(one(b"").await, @"messages[0].content[1].input_audio.data: this is no sound that can be read; expected WAV, MP3, FLAC, Ogg Vorbis or M4A (AAC)");
    insta::assert_snapshot!(one(b"RIFF of nothing").await, @"messages[0].content[1].input_audio.data: this is no sound that can be read; expected WAV, MP3, FLAC, Ogg Vorbis or M4A (AAC)");
    insta::assert_snapshot!(one(&whole[..9000]).await, @"messages[0].content[1].input_audio.data: the sound is cut short: 4478 of 8000 samples are there");
    insta::assert_snapshot!(one(&wav(0, 500)).await, @"messages[0].content[1].input_audio.data: it is too quiet");
    insta::assert_snapshot!(one(&wav(9, 20)).await, @"messages[0].content[1].input_audio.data: the sound is shorter than 100ms");
    let mut long = whole.clone();
    long[40..44].copy_from_slice(&(4 * 60 * 60 * 2 * RATE).to_le_bytes());
    insta::assert_snapshot!(one(&long).await, @"messages[0].content[1].input_audio.data: the sound is damaged: malformed stream: riff: chunk length exceeds parent (list) chunk length");
    let picture = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}});
    let refused = refusal(
        server
            .post("/v1/chat/completions", message(&[picture]))
            .await,
    )
    .await;
    insta::assert_snapshot!(refused, @"messages[0].content[0]: this model takes no images");
    let three = vec![sound(&wav(9, 100)); 3];
    let refused = refusal(server.post("/v1/chat/completions", message(&three)).await).await;
    insta::assert_snapshot!(refused, @"messages[0].content[2]: more than the 2 sounds that a request may have");
    let spoken =
        json!({"messages": [{"role": "user", "content": "a"}], "modalities": ["text", "audio"]});
    let refused = refusal(server.post("/v1/chat/completions", spoken).await).await;
    insta::assert_snapshot!(refused, @r#"modalities: expected ["text"], got an array of 2"#);
}

#[tokio::test]
async fn a_sound_is_written_down_as_json_as_text_and_as_events() {
    let server = hearing();
    let file = wav(9, 200);
    let fields = [
        ("model", "org/fake"),
        ("prompt", "write it down\nhello"),
        ("temperature", "0"),
        ("max_tokens", "4"),
    ];
    let response = server.send(form(&fields, Some(&file))).await;
    assert_eq!(response.status(), StatusCode::OK);
    insta::assert_snapshot!(text(response).await, @r#"{"text":"hell","usage":{"type":"tokens","input_tokens":40,"input_token_details":{"audio_tokens":20,"text_tokens":20,"cached_tokens":0},"output_tokens":4,"total_tokens":44}}"#);

    let plain = [&fields[..], &[("response_format", "text")]].concat();
    let response = server.send(form(&plain, Some(&file))).await;
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; charset=utf-8"
    );
    insta::assert_snapshot!(text(response).await, @"hell");

    let stream = [
        &fields[..],
        &[("stream", "true"), ("include[]", "logprobs")],
    ]
    .concat();
    let response = server.send(form(&stream, Some(&file))).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    insta::assert_snapshot!(text(response).await, @r#"
    data: {"type":"transcript.text.delta","delta":"h","logprobs":[{"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[]}]}

    data: {"type":"transcript.text.delta","delta":"e","logprobs":[{"token":"e","logprob":-0.5,"bytes":[101],"top_logprobs":[]}]}

    data: {"type":"transcript.text.delta","delta":"l","logprobs":[{"token":"l","logprob":-0.5,"bytes":[108],"top_logprobs":[]}]}

    data: {"type":"transcript.text.delta","delta":"l","logprobs":[{"token":"l","logprob":-0.5,"bytes":[108],"top_logprobs":[]}]}

    data: {"type":"transcript.text.done","text":"hell","logprobs":[{"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[]},{"token":"e","logprob":-0.5,"bytes":[101],"top_logprobs":[]},{"token":"l","logprob":-0.5,"bytes":[108],"top_logprobs":[]},{"token":"l","logprob":-0.5,"bytes":[108],"top_logprobs":[]}],"usage":{"type":"tokens","input_tokens":40,"input_token_details":{"audio_tokens":20,"text_tokens":20,"cached_tokens":39},"output_tokens":4,"total_tokens":44}}

    data: [DONE]
    "#);
}

#[tokio::test]
async fn a_form_that_is_not_right_is_refused_by_its_field() {
    let server = hearing();
    let file = wav(9, 200);
    let one = async |name: &str, value: &str| {
        refusal(server.send(form(&[(name, value)], Some(&file))).await).await
    };
    insta::assert_snapshot!(refusal(server.send(form(&[], None)).await).await, @"file: expected a file, but it is missing");
    insta::assert_snapshot!(refusal(server.send(form(&[], Some(b"hello"))).await).await, @"file: this is no sound that can be read; expected WAV, MP3, FLAC, Ogg Vorbis or M4A (AAC)");
    insta::assert_snapshot!(one("temperature", "hot").await, @r#"temperature: expected a number from 0 to 5, got "hot""#);
    insta::assert_snapshot!(one("stream", "perhaps").await, @r#"stream: expected true or false, got "perhaps""#);
    insta::assert_snapshot!(one("max_tokens", "many").await, @r#"max_tokens: expected an integer from -1 to 4294967295, got "many""#);
    insta::assert_snapshot!(one("language", "the one of the Angles").await, @r#"language: expected a language's code such as "en" or "pt-BR""#);
    insta::assert_snapshot!(one("response_format", "srt").await, @r#"response_format: "srt" needs times or speakers, which this model does not tell; expected "json" or "text""#);
    insta::assert_snapshot!(one("response_format", "pdf").await, @r#"response_format: expected "json" or "text""#);
    insta::assert_snapshot!(one("timestamp_granularities[]", "word").await, @"timestamp_granularities: this model tells no times; leave it out");
    insta::assert_snapshot!(one("known_speaker_names[]", "me").await, @"known_speaker_names: this model tells no speakers apart; leave it out");
    insta::assert_snapshot!(one("include[]", "all").await, @r#"include: expected "logprobs""#);
    insta::assert_snapshot!(one("chunking_strategy", r#"{"type": "server_vad"}"#).await, @r#"chunking_strategy: expected "auto": the projector divides sounds itself"#);
    let both = [("stream", "true"), ("response_format", "text")];
    insta::assert_snapshot!(refusal(server.send(form(&both, Some(&file))).await).await, @r#"response_format: a stream has events; expected "json" beside it"#);
    let json = server
        .post("/v1/audio/transcriptions", json!({"file": "a.wav"}))
        .await;
    insta::assert_snapshot!(refusal(json).await, @"content-type: expected a form: multipart/form-data with a boundary (Content-Type is not multipart/form-data)");
    let response = server
        .send(form(&[("model", "whisper-1")], Some(&file)))
        .await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let response = server
        .send(form(&[("prompt", &"x".repeat(300))], Some(&file)))
        .await;
    let error = value(response).await["error"].clone();
    assert_eq!(error["param"], "file");
    insta::assert_snapshot!(error["message"], @r#""This model's maximum context length is 256 tokens. However, your file resulted in 321 tokens. Please reduce the length of the file.""#);
}

#[tokio::test]
async fn what_no_model_here_does_is_said_to_be_missing() {
    let server = hearing();
    for path in ["/v1/audio/translations", "/v1/audio/speech"] {
        let response = server.post(path, json!({})).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let error = value(response).await;
        assert_eq!(
            error["error"]["message"],
            format!("there is no POST {path} here")
        );
    }
}

#[tokio::test]
async fn props_tell_whether_the_model_hears() {
    for (server, hears) in [(hearing(), true), (Server::ready(), false)] {
        let props = value(server.get("/props").await).await;
        assert_eq!(
            props["modalities"],
            json!({"vision": false, "audio": hears})
        );
    }
}
