//! Files of sounds to samples at the rate that a projector hears: WAV, MP3, FLAC, Ogg Vorbis and M4A (AAC), mixed to one
//! channel, within a limit of time that holds whatever a header claims.

use std::{
    io::{self, Cursor},
    ops::RangeInclusive,
    time::Duration,
};

use rubato::{Fft, FixedSync, Resampler as _, audioadapter_buffers::direct::InterleavedSlice};
use symphonia::{
    core::{
        codecs::audio::{AudioDecoder, AudioDecoderOptions},
        errors::Error,
        formats::{FormatOptions, FormatReader, TrackType, probe::Hint},
        io::{MediaSourceStream, MediaSourceStreamOptions},
        meta::MetadataOptions,
    },
    default::{get_codecs, get_probe},
};

use crate::engine::senses::SHORTEST_SOUND;

/// Rates of files, in Hz: from half of a telephone's to the double of a studio's.
const RATES: RangeInclusive<u32> = 4_000..=384_000;
/// Frames that are resampled together.
const CHUNK_FRAMES: usize = 4096;
/// One part in so many may be broken: recordings begin and end in the middle of something.
const SOUND_PARTS: u64 = 10;

/// Why a file is not a sound, in words for the client.
#[derive(Debug, thiserror::Error)]
pub(in crate::api) enum Undecoded {
    #[error("this is no sound that can be read; expected {EXPECTED}")]
    Format,
    #[error("the file holds no sound")]
    Silent,
    #[error("a sound of {rate} Hz cannot be read; expected {} to {} Hz", RATES.start(), RATES.end())]
    Rate { rate: u32 },
    #[error("the sound is shorter than {SHORTEST_SOUND:?}")]
    Short,
    #[error("the sound is longer than the {0:?} that this server takes")]
    Long(Duration),
    #[error("the sound is cut short: {found} of {claimed} samples are there")]
    Cut { found: u64, claimed: u64 },
    #[error("the sound holds numbers that are not finite")]
    NotFinite,
    #[error("the sound is damaged: {0}")]
    Damaged(String),
}

pub(super) const EXPECTED: &str = "WAV, MP3, FLAC, Ogg Vorbis or M4A (AAC)";

impl From<Error> for Undecoded {
    fn from(error: Error) -> Self {
        match error {
            Error::Unsupported(_) => Self::Format,
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// Containers, told apart by their first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    /// Those that count their samples.
    Counted,
    Other,
}

impl Container {
    fn of(file: &[u8]) -> Option<Self> {
        match file {
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'A',
                b'V',
                b'E',
                ..,
            ]
            | [b'f', b'L', b'a', b'C', ..] => Some(Self::Counted),
            // MP3 with or without tags, AAC's bare frames, Ogg, M4A.
            [b'I', b'D', b'3', ..]
            | [0xff, 0xe0..=0xff, ..]
            | [b'O', b'g', b'g', b'S', ..]
            | [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some(Self::Other),
            _ => None,
        }
    }
}

/// One channel of samples from -1 to 1, `rate` of them a second.
pub(in crate::api) fn samples(
    file: &[u8],
    rate: u32,
    longest: Duration,
) -> Result<Vec<f32>, Undecoded> {
    let container = Container::of(file).ok_or(Undecoded::Format)?;
    let source = MediaSourceStream::new(
        Box::new(Cursor::new(file)),
        MediaSourceStreamOptions::default(),
    );
    let mut format = get_probe().probe(
        &Hint::new(),
        source,
        FormatOptions::default(),
        MetadataOptions::default(),
    )?;
    let track = format
        .default_track(TrackType::Audio)
        .ok_or(Undecoded::Silent)?;
    let (id, claimed) = (track.id, track.num_frames);
    let parameters = track.codec_params.as_ref().and_then(|codec| codec.audio());
    let parameters = parameters.ok_or(Undecoded::Format)?;
    if let Some((claimed, rate)) = claimed.zip(parameters.sample_rate) {
        within(claimed, rate, longest)?;
    }
    let mut decoder =
        get_codecs().make_audio_decoder(parameters, &AudioDecoderOptions::default())?;
    let most_parts = file.len() as u64;
    let mono = mix(&mut *format, &mut *decoder, id, most_parts, longest)?;
    let found = mono.samples.len() as u64;
    if let Some(claimed) = claimed
        && container == Container::Counted
        && found < claimed
    {
        return Err(Undecoded::Cut { found, claimed });
    }
    if length(found, mono.rate) < SHORTEST_SOUND {
        return Err(Undecoded::Short);
    }
    resample(mono, rate)
}

/// A sound of one channel.
struct Mono {
    /// Hz.
    rate: u32,
    samples: Vec<f32>,
}

fn mix(
    format: &mut dyn FormatReader,
    decoder: &mut dyn AudioDecoder,
    track: u32,
    most_parts: u64,
    longest: Duration,
) -> Result<Mono, Undecoded> {
    let mut mono = Mono {
        rate: 0,
        samples: Vec::new(),
    };
    let mut interleaved: Vec<f32> = Vec::new();
    let (mut parts, mut broken) = (0_u64, 0_u64);
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            Err(Error::IoError(error)) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error.into()),
        };
        parts += 1;
        if parts > most_parts {
            return Err(Undecoded::Damaged("it does not end".to_owned()));
        }
        if packet.track_id != track {
            continue;
        }
        let heard = match decoder.decode(&packet) {
            Ok(heard) => heard,
            Err(Error::DecodeError(_)) => {
                broken += 1;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let (rate, channels) = (heard.spec().rate(), heard.spec().channels().count());
        if heard.frames() == 0 || channels == 0 {
            continue;
        }
        if !RATES.contains(&rate) {
            return Err(Undecoded::Rate { rate });
        }
        if mono.rate != 0 && mono.rate != rate {
            return Err(Undecoded::Damaged("its rate changes".to_owned()));
        }
        mono.rate = rate;
        let so_far = mono.samples.len() + heard.frames();
        within(so_far as u64, rate, longest)?;
        heard.copy_to_vec_interleaved(&mut interleaved);
        for frame in interleaved.chunks_exact(channels) {
            let mean = frame.iter().sum::<f32>() / channels as f32;
            if !mean.is_finite() {
                return Err(Undecoded::NotFinite);
            }
            mono.samples.push(mean.clamp(-1.0, 1.0));
        }
    }
    if broken * SOUND_PARTS > parts {
        return Err(Undecoded::Damaged(format!(
            "{broken} of its {parts} parts cannot be decoded"
        )));
    }
    if mono.samples.is_empty() {
        return Err(Undecoded::Silent);
    }
    Ok(mono)
}

fn within(frames: u64, rate: u32, longest: Duration) -> Result<(), Undecoded> {
    if length(frames, rate) > longest {
        return Err(Undecoded::Long(longest));
    }
    Ok(())
}

fn length(frames: u64, rate: u32) -> Duration {
    let rate = u64::from(rate.max(1));
    let rest = frames % rate * 1_000_000_000 / rate;
    Duration::from_secs(frames / rate) + Duration::from_nanos(rest)
}

fn resample(mono: Mono, rate: u32) -> Result<Vec<f32>, Undecoded> {
    if mono.rate == rate {
        return Ok(mono.samples);
    }
    let damaged = |error: &dyn std::fmt::Display| Undecoded::Damaged(error.to_string());
    let (from, to, frames) = (mono.rate as usize, rate as usize, mono.samples.len());
    let mut resampler = Fft::<f32>::new(from, to, CHUNK_FRAMES, 1, FixedSync::Both)
        .map_err(|error| damaged(&error))?;
    let input = InterleavedSlice::new(&mono.samples, 1, frames).map_err(|error| damaged(&error))?;
    let output = resampler
        .process_all(&input, frames, None)
        .map_err(|error| damaged(&error))?;
    Ok(output.take_data())
}

#[cfg(test)]
pub(super) mod tests;
