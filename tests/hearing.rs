//! Sounds end to end: the real binary and the real small model behind a synthetic encoder of sounds.

#[path = "support/encoders.rs"]
mod encoders;
#[path = "support/perceived.rs"]
mod perceived;
#[path = "support/server.rs"]
mod server;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use perceived::{alternatives, ask, distance, question};
use server::Server;

/// Of the small model.
const WIDTH: usize = 576;
const ENGINE: &str = "engine = {context = 1024, parallel = 2}";
const RATE: u32 = 16_000;

fn hearing(kind: &str, settings: &[&str]) -> Server {
    Server::start_seeing(&encoders::projector(kind, WIDTH), settings)
}

/// A WAV file with a tone.
fn tone(hertz: u32, length: Duration) -> Vec<u8> {
    let frames = u64::from(RATE) * u64::try_from(length.as_millis()).unwrap() / 1000;
    let sample = |at: u64| {
        let phase = at as f64 * f64::from(hertz) / f64::from(RATE) * std::f64::consts::TAU;
        #[expect(clippy::cast_possible_truncation, reason = "within half of an i16")]
        let sample = (phase.sin() * 12_000.0) as i16;
        sample.to_le_bytes()
    };
    wav(&(0..frames).flat_map(sample).collect::<Vec<_>>(), 1, 16)
}

/// `kind` 1: whole numbers, 3: floating point.
fn wav(data: &[u8], kind: u8, bits: u8) -> Vec<u8> {
    let size = |bytes: usize| u32::try_from(bytes).unwrap().to_le_bytes();
    let mut file = b"RIFF".to_vec();
    file.extend_from_slice(&size(36 + data.len()));
    file.extend_from_slice(b"WAVEfmt \x10\0\0\0");
    file.extend_from_slice(&[kind, 0, 1, 0]);
    file.extend_from_slice(&RATE.to_le_bytes());
    file.extend_from_slice(&(RATE * u32::from(bits / 8)).to_le_bytes());
    file.extend_from_slice(&[bits / 8, 0, bits, 0]);
    file.extend_from_slice(b"data");
    file.extend_from_slice(&size(data.len()));
    file.extend_from_slice(data);
    file
}

fn sound(file: &[u8]) -> Value {
    json!({"type": "input_audio", "input_audio": {"data": STANDARD.encode(file), "format": "wav"}})
}

#[test]
fn sounds_are_told_apart_and_the_same_one_is_taken_from_the_cache() {
    let server = hearing("hears", &[ENGINE]);
    let second = Duration::from_secs(1);
    let (low, high) = (tone(220, second), tone(1760, second));
    let first = ask(&server, &question(&[sound(&low)]));
    let again = ask(&server, &question(&[sound(&low)]));
    let other = ask(&server, &question(&[sound(&high)]));
    assert!(distance(&alternatives(&first), &alternatives(&again)) < 0.05);
    assert!(
        distance(&alternatives(&first), &alternatives(&other)) > 0.05,
        "{first} {other}"
    );
    let cached = |answer: &Value| {
        answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    assert!(cached(&again) > 25, "{again}");
    assert!(cached(&other) < 25, "{other}");
}

#[test]
fn a_sound_of_more_than_half_a_minute_takes_more_than_one_part() {
    let server = hearing("hears", &[ENGINE]);
    let tokens = |seconds| {
        let file = tone(440, Duration::from_secs(seconds));
        ask(&server, &question(&[sound(&file)]))["usage"]["prompt_tokens"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(tokens(40) - tokens(20), 25);
}

#[test]
fn one_projector_may_both_see_and_hear() {
    let server = hearing("both", &[ENGINE]);
    let (_, props) = server.get("/props").unwrap();
    let props: Value = serde_json::from_str(&props).unwrap();
    assert_eq!(props["modalities"], json!({"vision": true, "audio": true}));
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(9, 9, image::Rgb([200, 10, 10]))
        .write_to(&mut png, image::ImageFormat::Png)
        .unwrap();
    let url = format!(
        "data:image/png;base64,{}",
        STANDARD.encode(png.into_inner())
    );
    let picture = json!({"type": "image_url", "image_url": {"url": url}});
    let sound = sound(&tone(440, Duration::from_secs(1)));
    let one = ask(&server, &question(&[picture.clone(), sound.clone()]));
    let swapped = ask(&server, &question(&[sound, picture]));
    assert_eq!(
        one["usage"]["prompt_tokens"],
        swapped["usage"]["prompt_tokens"]
    );
    assert!(distance(&alternatives(&one), &alternatives(&swapped)) > 0.0);
}

#[test]
fn hostile_files_are_refused_by_their_field_and_the_server_lives() {
    let server = hearing("hears", &[ENGINE, "limits.audio_length = 60"]);
    let whole = tone(440, Duration::from_secs(1));
    let mut claims = whole.clone();
    claims[40..44].copy_from_slice(&0x4000_0000_u32.to_le_bytes());
    let floats =
        |number: f32| -> Vec<u8> { (0..RATE).flat_map(|_| number.to_le_bytes()).collect() };
    let silence = vec![0; 61 * 2 * RATE as usize];
    for (name, file) in [
        ("a truncated file", whole[..20_000].to_vec()),
        ("half a header", whole[..30].to_vec()),
        ("a gigabyte in 32 kB", claims),
        (
            "text",
            b"this is no sound at all, whatever its name".to_vec(),
        ),
        ("no samples", wav(&[], 1, 16)),
        ("one sample", wav(&[1, 2], 1, 16)),
        ("no numbers", wav(&floats(f32::NAN), 3, 32)),
        ("too large numbers", wav(&floats(f32::INFINITY), 3, 32)),
        ("a minute and a second of silence", wav(&silence, 1, 16)),
        ("nothing", Vec::new()),
    ] {
        let body = question(&[sound(&file)]).to_string();
        let (status, text) = server.post("/v1/chat/completions", &body).unwrap();
        assert_eq!(status, 400, "{name}: {text}");
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            error["error"]["param"], "messages[0].content[0].input_audio.data",
            "{name}: {text}"
        );
    }
    // Silence within the limit is a sound like any other, and so is the loudest noise.
    for file in [wav(&silence[..32_000], 1, 16), wav(&floats(1e30), 3, 32)] {
        ask(&server, &question(&[sound(&file)]));
    }
    ask(&server, &question(&[sound(&whole)]));
}

#[test]
fn an_encoder_on_which_llama_cpp_asserts_is_refused_at_start() {
    let mut server = Server::spawn_seeing(&encoders::projector("short", WIDTH), &[ENGINE]);
    let status = server.wait(Duration::from_mins(2));
    let log = server.read_log();
    assert_eq!(status.code(), Some(65), "{log}");
    assert!(log.contains("GGML_ASSERT"), "{log}");
}

#[test]
fn a_projector_that_only_hears_takes_no_images() {
    let server = hearing("hears", &[ENGINE]);
    let picture = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}});
    let (status, text) = server
        .post("/v1/chat/completions", &question(&[picture]).to_string())
        .unwrap();
    assert_eq!(status, 400);
    assert!(
        text.contains("messages[0].content[0]: this model takes no images"),
        "{text}"
    );
    let (_, props) = server.get("/props").unwrap();
    let props: Value = serde_json::from_str(&props).unwrap();
    let devices = props["plan"]["devices"].as_array().unwrap();
    let planned: u64 = devices
        .iter()
        .map(|device| device["projector"].as_u64().unwrap())
        .sum();
    let weights = encoders::projector("hears", WIDTH)
        .metadata()
        .unwrap()
        .len();
    assert!(planned >= weights - 16_384, "{planned} of {weights}");
}
