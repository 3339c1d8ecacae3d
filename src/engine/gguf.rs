//! What can be known of a GGUF file before llama.cpp loads it, so that what makes it abort is refused first.

use std::{fs::File, io::Read, path::Path};

use llama_cpp_2::gguf::GgufContext;

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
    #[error("the header names no model architecture (general.architecture)")]
    NoArchitecture,
    #[error("{key} is {found}; a model has 1 to 512 layers")]
    Layers { key: String, found: u64 },
}

/// What the header says of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub architecture: String,
    pub layers: u64,
    /// Tokens of context the model was trained with.
    pub trained_context: Option<u64>,
}

/// llama.cpp's `LLAMA_MAX_LAYERS`; it asserts on more, and on none.
const MAX_LAYERS: u64 = 512;

/// Reads and checks the header.
pub fn check(path: &Path) -> Result<Header, GgufError> {
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
    let gguf = GgufContext::from_file(path).ok_or(GgufError::Header)?;
    let architecture = text(&gguf, "general.architecture").ok_or(GgufError::NoArchitecture)?;
    let key = format!("{architecture}.block_count");
    let layers = number(&gguf, &key).ok_or(GgufError::Header)?;
    // Text encoders of projectors have none; they are not models to serve.
    if layers == 0 || layers > MAX_LAYERS {
        return Err(GgufError::Layers { key, found: layers });
    }
    let trained_context = number(&gguf, &format!("{architecture}.context_length"));
    Ok(Header {
        architecture,
        layers,
        trained_context,
    })
}

fn text(gguf: &GgufContext, key: &str) -> Option<String> {
    let at = find(gguf, key)?;
    (gguf.kv_type(at) == llama_cpp_sys_2::GGUF_TYPE_STRING)
        .then(|| gguf.val_str(at).map(str::to_owned))
        .flatten()
}

/// A whole number; llama.cpp asserts when a value is read as another type, so the type is looked at first.
fn number(gguf: &GgufContext, key: &str) -> Option<u64> {
    let at = find(gguf, key)?;
    match gguf.kv_type(at) {
        llama_cpp_sys_2::GGUF_TYPE_UINT32 => Some(u64::from(gguf.val_u32(at))),
        llama_cpp_sys_2::GGUF_TYPE_INT32 => u64::try_from(gguf.val_i32(at)).ok(),
        llama_cpp_sys_2::GGUF_TYPE_UINT64 => Some(gguf.val_u64(at)),
        _ => None,
    }
}

fn find(gguf: &GgufContext, key: &str) -> Option<i64> {
    let at = gguf.find_key(key);
    (at >= 0).then_some(at)
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
}
