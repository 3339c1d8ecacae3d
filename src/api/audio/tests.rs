//! Which parts of messages are sounds.

use serde_json::json;

use super::*;

fn limits() -> Limits {
    use crate::config::{self, KnownModel, Source};
    let known = KnownModel {
        name: "tiny".into(),
        trained_context: None,
    };
    let text = "{ model.name = \"tiny\", limits.audio_bytes = 2000 }";
    let source = Source::new("test.ncl", text);
    config::load(&source, &[], &[known]).unwrap().limits
}

fn read(input: &Value) -> Result<Vec<u8>, String> {
    let part = json!({"type": "input_audio", "input_audio": input});
    file("m", &part, &limits()).map_err(|error| error.to_string())
}

#[test]
fn data_is_read_bare_and_from_data_urls() {
    assert_eq!(
        read(&json!({"data": "aGVsbG8=", "format": "wav"})).unwrap(),
        b"hello"
    );
    assert_eq!(
        read(&json!({"data": "data:audio/mpeg;base64,aGVsbG8"})).unwrap(),
        b"hello"
    );
}

#[test]
fn what_is_no_sound_in_base64_is_refused_where_it_stands() {
    let why_not = |input: Value| read(&input).unwrap_err();
    insta::assert_snapshot!(why_not(json!(null)), @"m.input_audio: expected an object with data and format");
    insta::assert_snapshot!(why_not(json!({"format": "wav"})), @"m.input_audio.data: expected a file in base64");
    insta::assert_snapshot!(why_not(json!({"data": 1, "format": "wav"})), @"m.input_audio.data: expected a file in base64");
    insta::assert_snapshot!(why_not(json!({"data": "a*b", "format": "wav"})), @"m.input_audio.data: the base64 is damaged: Invalid symbol 42, offset 1.");
    insta::assert_snapshot!(why_not(json!({"data": "", "format": "exe"})), @r#"m.input_audio.format: expected one of ["wav", "mp3", "mpeg", "mpga", "flac", "ogg", "m4a", "mp4", "aac"]"#);
    insta::assert_snapshot!(why_not(json!({"data": "A".repeat(2800), "format": "wav"})), @"m.input_audio.data: the sound is larger than 2000 bytes");
}
