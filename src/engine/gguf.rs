//! What can be known of a GGUF file before llama.cpp loads it, so that what makes it abort is refused first.

mod adapter;

use std::{fs::File, io::Read, path::Path};

pub use self::adapter::{Adapter, AdapterError};
use super::llama::gguf as raw;

/// Why a file is not a model.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("not a regular file; give the path of a .gguf file")]
    NotAFile,
    #[error("the file is empty")]
    Empty,
    #[error("not a GGUF file (it begins with {found:?}, not \"GGUF\")")]
    Magic { found: String },
    #[error("the GGUF header is damaged or cut short")]
    Header,
    #[error(
        "its tensor {0} is of a number format that nothing is computed in; the header is damaged"
    )]
    Format(String),
    #[error("the header names no model architecture (general.architecture)")]
    NoArchitecture,
    #[error("{key} is {found}; a model has 1 to 512 layers")]
    Layers { key: String, found: u64 },
    #[error("this is no projector but a model (general.architecture is {found:?}, not \"clip\")")]
    NoProjector { found: String },
    #[error(
        "images of a {0} projector depend on where in a prompt they stand, which is not supported"
    )]
    Placing(String),
}

/// What the header says of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub architecture: String,
    /// `general.name`.
    pub name: Option<String>,
    /// Blocks, prediction heads included.
    pub layers: u32,
    /// How many of the last blocks are prediction heads (MTP), which only speculation loads.
    pub prediction_layers: u32,
    /// Tokens of context the model was trained with.
    pub trained_context: Option<u64>,
    /// 0: not a mixture of experts.
    pub experts: u32,
    pub experts_used: u32,
    /// Elements of one head's key and value; 0: not the same in all layers, or not said.
    pub key_length: u64,
    pub value_length: u64,
    /// Tokens of the vocabulary that the embeddings have rows for; 0: there are none.
    pub vocabulary: u64,
    /// Heads of keys and values; 0: not the same in all layers, or not said.
    pub kv_heads: u64,
    /// Whether caches hold a window of the context instead of all of it in some layers.
    pub slides: bool,
    /// Whether some layers keep states of a fixed size instead of a cache that grows.
    pub keeps_states: bool,
    /// llama.cpp's number of the pooling that the file names.
    pub pooling: Option<u64>,
    pub tensors: Vec<Tensor>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    pub name: String,
    pub bytes: u64,
}

/// llama.cpp's `LLAMA_MAX_LAYERS`; it asserts on more, and on none.
const MAX_LAYERS: u32 = 512;

/// Architecture of projectors.
const PROJECTOR: &str = "clip";
/// Projectors that would have to see a whole prompt: pictures are computed by themselves here.
const PLACING: [&str; 2] = ["deepseek4v", "hunyuanvl"];

/// Checks what can be known of a projector's file.
pub fn check_projector(path: &Path) -> Result<(), GgufError> {
    let gguf = open(path)?;
    let found = gguf
        .text("general.architecture")
        .ok_or(GgufError::NoArchitecture)?;
    if found != PROJECTOR {
        return Err(GgufError::NoProjector { found });
    }
    let kinds = ["clip.projector_type", "clip.vision.projector_type"];
    let kinds = kinds.into_iter().filter_map(|key| gguf.text(key));
    match kinds
        .into_iter()
        .find(|kind| PLACING.contains(&kind.as_str()))
    {
        Some(kind) => Err(GgufError::Placing(kind)),
        None => Ok(()),
    }
}

/// How the vocabularies of two models differ, in words about the first; `None`: what one says the other understands.
pub(crate) fn vocabularies_differ(one: &Path, other: &Path) -> Result<Option<String>, GgufError> {
    // As llama.cpp's own drafts have it: the first tokens are special ones, and the end may be padded.
    const FIRST: usize = 5;
    const PADDING: usize = 128;
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let (draft, model) = (open(one)?, open(other)?);
    let kind = |file: &raw::File| file.text("tokenizer.ggml.model").unwrap_or_default();
    if kind(&draft) != kind(&model) {
        return Ok(Some(format!(
            "its tokenizer is of the kind {:?}, and the model's {:?}",
            kind(&draft),
            kind(&model)
        )));
    }
    let (one, other) = (draft.texts(TOKENS), model.texts(TOKENS));
    let (one, other) = (one.unwrap_or_default(), other.unwrap_or_default());
    if one.len().abs_diff(other.len()) > PADDING {
        return Ok(Some(format!(
            "it has {} tokens, and the model {}",
            one.len(),
            other.len()
        )));
    }
    let differs = one.iter().zip(&other).skip(FIRST).position(|(a, b)| a != b);
    Ok(differs.map(|at| {
        let at = at + FIRST;
        format!(
            "its token {at} is {:?}, and the model's {:?}",
            one[at], other[at]
        )
    }))
}

fn open(path: &Path) -> Result<raw::File, GgufError> {
    // A FIFO without a writer would never open: look before opening.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(GgufError::NotAFile);
    }
    if metadata.len() == 0 {
        return Err(GgufError::Empty);
    }
    let mut magic = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut magic)?;
    if magic != b"GGUF" {
        return Err(GgufError::Magic {
            found: String::from_utf8_lossy(&magic).into_owned(),
        });
    }
    raw::File::open(path).ok_or(GgufError::Header)
}

/// Reads and checks the header.
pub fn check(path: &Path) -> Result<Header, GgufError> {
    let gguf = open(path)?;
    let architecture = gguf
        .text("general.architecture")
        .ok_or(GgufError::NoArchitecture)?;
    let number = |key: &str| gguf.number(&format!("{architecture}.{key}"));
    let small = |key: &str| number(key).and_then(|value| u32::try_from(value).ok());
    let found = number("block_count").ok_or(GgufError::Header)?;
    // Text encoders of projectors have none; they are not models to serve.
    let layers = u32::try_from(found)
        .ok()
        .filter(|layers| (1..=MAX_LAYERS).contains(layers))
        .ok_or_else(|| GgufError::Layers {
            key: format!("{architecture}.block_count"),
            found,
        })?;
    let heads = number("attention.head_count").filter(|&heads| heads > 0);
    if let Some(name) = gguf.uncomputable() {
        return Err(GgufError::Format(name));
    }
    let even = number("embedding_length")
        .zip(heads)
        .map(|(width, heads)| width / heads);
    Ok(Header {
        name: gguf.text("general.name"),
        layers,
        prediction_layers: small("nextn_predict_layers").unwrap_or(0).min(layers),
        trained_context: number("context_length"),
        experts: small("expert_count").unwrap_or(0),
        experts_used: small("expert_used_count").unwrap_or(0),
        key_length: number("attention.key_length").or(even).unwrap_or(0),
        value_length: number("attention.value_length").or(even).unwrap_or(0),
        kv_heads: number("attention.head_count_kv").unwrap_or(0),
        vocabulary: gguf.rows("token_embd.weight").unwrap_or(0),
        slides: number("attention.sliding_window").is_some(),
        keeps_states: number("ssm.state_size").is_some()
            || number("ssm.conv_kernel").is_some()
            || number("wkv.head_size").is_some(),
        pooling: number("pooling_type"),
        tensors: gguf
            .tensors()
            .into_iter()
            .map(|(name, bytes)| Tensor { name, bytes })
            .collect(),
        architecture,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_model_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            check(&path).unwrap_err().to_string()
        };
        insta::assert_snapshot!(file("empty", b""), @"the file is empty");
        insta::assert_snapshot!(file("text", b"hello"), @r#"not a GGUF file (it begins with "hell", not "GGUF")"#);
        insta::assert_snapshot!(file("short", b"GGUF\x03\0\0\0"), @"the GGUF header is damaged or cut short");
        insta::assert_snapshot!(check(folder.path()).unwrap_err(), @"not a regular file; give the path of a .gguf file");
    }

    /// A header of one layer and one tensor of 32 elements in ggml's format of this number.
    fn header(format: u32) -> Vec<u8> {
        let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
        let number = u32::to_le_bytes;
        let parts = [
            &b"GGUF\x03\0\0\0"[..],
            &1_u64.to_le_bytes(),
            &2_u64.to_le_bytes(),
            &[
                text("general.architecture"),
                number(8).into(),
                text("llama"),
            ]
            .concat(),
            &[
                text("llama.block_count"),
                number(4).into(),
                number(1).into(),
            ]
            .concat(),
            &[text("blk.0.attn_q.weight"), number(1).into()].concat(),
            &32_u64.to_le_bytes(),
            &number(format),
            &0_u64.to_le_bytes(),
            &[0; 512],
        ];
        parts.concat()
    }

    #[test]
    fn a_tensor_in_a_format_that_nothing_is_computed_in_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let found = |format| {
            std::fs::write(&path, header(format)).unwrap();
            check(&path).map_err(|error| error.to_string())
        };
        assert_eq!(found(0).unwrap().tensors.len(), 1);
        // ggml's I8, I16, I32, I64 and F64.
        for format in 24..=28 {
            let error = found(format).unwrap_err();
            assert!(error.contains("blk.0.attn_q.weight"), "{format}: {error}");
        }
    }
}
