//! What is read of sounds, and why others are not.

use super::*;

const RATE: u32 = 16_000;
const LONGEST: Duration = Duration::from_secs(2);

/// A WAV file: `kind` 1 is of whole numbers, 3 of floating point numbers.
pub(in crate::api::audio) fn wav(
    kind: u16,
    channels: u16,
    rate: u32,
    width: u16,
    data: &[u8],
) -> Vec<u8> {
    let size = |bytes: usize| u32::try_from(bytes).unwrap().to_le_bytes();
    let frame = channels * width;
    let mut file = Vec::new();
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&size(36 + data.len()));
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&size(16));
    file.extend_from_slice(&kind.to_le_bytes());
    file.extend_from_slice(&channels.to_le_bytes());
    file.extend_from_slice(&rate.to_le_bytes());
    file.extend_from_slice(&(rate * u32::from(frame)).to_le_bytes());
    file.extend_from_slice(&frame.to_le_bytes());
    file.extend_from_slice(&(width * 8).to_le_bytes());
    file.extend_from_slice(b"data");
    file.extend_from_slice(&size(data.len()));
    file.extend_from_slice(data);
    file
}

fn tone(rate: u32, millis: u32) -> Vec<i16> {
    let count = u64::from(rate) * u64::from(millis) / 1000;
    let sample = |at: u64| {
        let phase = at as f64 / f64::from(rate) * 440.0 * std::f64::consts::TAU;
        #[expect(clippy::cast_possible_truncation, reason = "within half of an i16")]
        let sample = (phase.sin() * 16_000.0) as i16;
        sample
    };
    (0..count).map(sample).collect()
}

fn bytes(samples: &[i16]) -> Vec<u8> {
    samples
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect()
}

fn whole(rate: u32, millis: u32) -> Vec<u8> {
    wav(1, 1, rate, 2, &bytes(&tone(rate, millis)))
}

fn read(file: &[u8]) -> Result<Vec<f32>, Undecoded> {
    samples(file, RATE, LONGEST)
}

fn why_not(file: &[u8]) -> String {
    read(file).unwrap_err().to_string()
}

fn loudness(samples: &[f32]) -> f32 {
    (samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32).sqrt()
}

#[test]
fn samples_of_the_right_rate_are_taken_as_they_are() {
    let wanted: Vec<_> = tone(RATE, 200)
        .iter()
        .map(|&sample| f32::from(sample) / 32768.0)
        .collect();
    assert_eq!(read(&whole(RATE, 200)).unwrap(), wanted);
}

#[test]
fn channels_are_mixed_and_what_is_too_loud_is_cut() {
    let pairs = [[16_384_i16, -16_384], [16_384, 0]]
        .repeat(RATE as usize / 4)
        .concat();
    let mixed = read(&wav(1, 2, RATE, 2, &bytes(&pairs))).unwrap();
    assert_eq!(mixed[..4], [0.0, 0.25, 0.0, 0.25]);
    let loud: Vec<u8> = [3.0_f32, -2.0]
        .repeat(4000)
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect();
    assert_eq!(read(&wav(3, 1, RATE, 4, &loud)).unwrap()[..2], [1.0, -1.0]);
}

#[test]
fn other_rates_keep_length_and_loudness() {
    for rate in [8_000, 11_025, 22_050, 44_100, 48_000, 96_000] {
        let heard = read(&whole(rate, 500)).unwrap();
        assert!(heard.len().abs_diff(8000) <= 2, "{rate}: {}", heard.len());
        let loudness = loudness(&heard);
        assert!((loudness - 0.345).abs() < 0.01, "{rate}: {loudness}");
    }
}

#[test]
fn every_format_gives_its_sound() {
    for (name, file) in [
        (
            "flac",
            &include_bytes!("../../../../tests/sounds/tone.flac")[..],
        ),
        ("m4a", include_bytes!("../../../../tests/sounds/tone.m4a")),
        ("mp3", include_bytes!("../../../../tests/sounds/tone.mp3")),
        ("ogg", include_bytes!("../../../../tests/sounds/tone.ogg")),
    ] {
        let heard = read(file).unwrap();
        // A quarter of a second, or what AAC pads it to.
        assert!(
            (4000..=5120).contains(&heard.len()),
            "{name}: {}",
            heard.len()
        );
        let loudness = loudness(&heard);
        assert!((0.27..0.33).contains(&loudness), "{name}: {loudness}");
    }
}

#[test]
fn what_is_no_sound_is_refused() {
    insta::assert_snapshot!(why_not(b""), @"this is no sound that can be read; expected WAV, MP3, FLAC, Ogg Vorbis or M4A (AAC)");
    assert!(matches!(
        read(b"hello, I am a sound.wav"),
        Err(Undecoded::Format)
    ));
    assert!(matches!(read(&vec![0; 5000]), Err(Undecoded::Format)));
    assert!(matches!(
        read(b"RIFF\x24\0\0\0WEBPVP8 "),
        Err(Undecoded::Format)
    ));
    insta::assert_snapshot!(why_not(&wav(1, 1, RATE, 2, b"")), @"the file holds no sound");
    insta::assert_snapshot!(why_not(&whole(RATE, 99)), @"the sound is shorter than 100ms");
    insta::assert_snapshot!(why_not(&whole(500, 1000)), @"a sound of 500 Hz cannot be read; expected 4000 to 384000 Hz");
}

#[test]
fn what_is_not_there_is_missed() {
    let file = whole(RATE, 1000);
    insta::assert_snapshot!(why_not(&file[..20_044]), @"the sound is cut short: 10000 of 16000 samples are there");
    insta::assert_snapshot!(why_not(&file[..30]), @"the sound is damaged: unexpected end of file");
    for file in [
        &include_bytes!("../../../../tests/sounds/tone.flac")[..],
        include_bytes!("../../../../tests/sounds/tone.m4a"),
    ] {
        assert!(read(&file[..file.len() / 2]).is_err());
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_by_the_header_and_by_what_comes() {
    assert!(read(&whole(RATE, 2000)).is_ok());
    insta::assert_snapshot!(why_not(&whole(RATE, 2001)), @"the sound is longer than the 2s that this server takes");
    // A gigabyte, of which nothing is there.
    let mut file = whole(RATE, 200);
    file[4..8].copy_from_slice(&0x4000_0024_u32.to_le_bytes());
    file[40..44].copy_from_slice(&0x4000_0000_u32.to_le_bytes());
    insta::assert_snapshot!(why_not(&file), @"the sound is longer than the 2s that this server takes");
    // A stream has no length in its header.
    let mut file = whole(RATE, 3000);
    file[4..8].fill(0xff);
    file[40..44].fill(0xff);
    assert!(read(&file).is_err());
}

#[test]
fn numbers_that_are_none_are_refused() {
    for wrong in [f32::NAN, f32::INFINITY] {
        let mut numbers = vec![0.1_f32; 8000];
        numbers[4000] = wrong;
        let data: Vec<u8> = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        insta::allow_duplicates! {
            insta::assert_snapshot!(why_not(&wav(3, 1, RATE, 4, &data)), @"the sound holds numbers that are not finite");
        }
    }
}

#[test]
fn a_stream_that_was_written_without_knowing_its_end_is_read_to_its_end() {
    let mut file = whole(RATE, 500);
    file[4..8].fill(0xff);
    file[40..44].fill(0xff);
    assert_eq!(read(&file).unwrap().len(), 8000);
}
