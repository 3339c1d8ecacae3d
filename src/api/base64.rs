//! Files in base64 as clients send them: with or without `=` at the end, on one line or many, within a limit.

use base64::{
    DecodeError, Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why there are no bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Undecoded {
    TooLarge { most_bytes: u64 },
    Damaged(DecodeError),
}

impl Undecoded {
    /// In words for the client; `what` it should be.
    pub(super) fn of(&self, what: &str) -> String {
        match self {
            Self::TooLarge { most_bytes } => {
                format!("the {what} is larger than {most_bytes} bytes")
            }
            Self::Damaged(error) => format!("the base64 is damaged: {error}"),
        }
    }
}

/// At most so many bytes.
pub(super) fn decode(data: &str, most_bytes: u64) -> Result<Vec<u8>, Undecoded> {
    let too_large = Undecoded::TooLarge { most_bytes };
    if data.len() as u64 / 4 * 3 > most_bytes.saturating_add(3) {
        return Err(too_large);
    }
    let wrapped = data.bytes().any(|byte| byte.is_ascii_whitespace());
    let bytes = if wrapped {
        let data = data.bytes().filter(|byte| !byte.is_ascii_whitespace());
        BASE64.decode(data.collect::<Vec<u8>>())
    } else {
        BASE64.decode(data)
    };
    match bytes {
        Ok(bytes) if bytes.len() as u64 > most_bytes => Err(too_large),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(Undecoded::Damaged(error)),
    }
}
