//! A new entry for `models.lock`, from what a hub says about a file; the file itself is not downloaded.

use serde::Deserialize;

use super::{
    Backoff, FetchError, Hub,
    choose::{Candidates, TreeItem, choose, is_projector, is_split, name_of},
    hub::encoded,
};
use crate::lock::{Digest, Entry, NAME_RULE, Source, is_name, is_repo, is_revision};

/// More pages than this are no model repository.
const MOST_PAGES: usize = 64;

/// What to pin, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// `OWNER/NAME`.
    pub repo: String,
    /// A branch, tag or commit.
    pub revision: String,
    /// A path in the repository, or a part of one such as a quantization; `None`: the only file.
    pub file: Option<String>,
    /// The name of the entry; `None`: made from the file's.
    pub name: Option<String>,
}

/// Why nothing was pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error(
        "`{0}` is not a source; accepted are hf:OWNER/REPO[@REVISION], OWNER/REPO[@REVISION] and OWNER/REPO:QUANT"
    )]
    Source(String),
    #[error("`{0}` is not usable as a name; accepted is {NAME_RULE}")]
    Name(String),
    #[error("{repo} has no GGUF file; accepted is a repository with one")]
    NoGguf { repo: String },
    #[error("{repo} has no GGUF file for `{file}`; it has{candidates}")]
    NoFile {
        repo: String,
        file: String,
        candidates: Candidates,
    },
    #[error("{repo} has several such files, choose one with --file:{candidates}")]
    Ambiguous {
        repo: String,
        candidates: Candidates,
    },
    #[error("{file} is one piece of a split model; only models in one file can be pinned")]
    Split { file: String },
    #[error(
        "the hub gives no SHA-256 for {file} (it is not stored as a large file), so it cannot be pinned"
    )]
    NoDigest { file: String },
    #[error(
        "the hub resolves {repo}@{revision} to `{sha}`, which is not a commit of 40 hex digits"
    )]
    NoCommit {
        repo: String,
        revision: String,
        sha: String,
    },
    #[error(transparent)]
    Hub(#[from] FetchError),
}

impl Wanted {
    /// Reads `[hf:]OWNER/REPO[@REVISION][:QUANT]`; without a revision, that is `main`.
    pub fn parse(source: &str, file: Option<&str>, name: Option<&str>) -> Result<Self, PinError> {
        let bad = || PinError::Source(source.to_owned());
        let rest = source.strip_prefix("hf:").unwrap_or(source);
        let (rest, quant) = match rest.split_once(':') {
            Some((rest, quant)) if !quant.is_empty() && file.is_none() => (rest, Some(quant)),
            Some(_) => return Err(bad()),
            None => (rest, None),
        };
        let (repo, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        if !is_repo(repo) || revision.is_empty() || revision.contains(char::is_control) {
            return Err(bad());
        }
        if let Some(name) = name.filter(|name| !is_name(name)) {
            return Err(PinError::Name(name.to_owned()));
        }
        Ok(Self {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            file: file.or(quant).map(str::to_owned),
            name: name.map(str::to_owned),
        })
    }
}

#[derive(Deserialize)]
struct Model {
    sha: String,
    #[serde(default, rename = "cardData")]
    card: Option<Card>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    gguf: Option<Gguf>,
}

#[derive(Deserialize)]
struct Card {
    /// One identifier, or a list of them.
    #[serde(default)]
    license: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Gguf {
    #[serde(default)]
    context_length: Option<u32>,
}

/// Resolves the revision to a commit, finds the file, and pins both: the entry and its name.
pub fn pin(hub: &Hub, wanted: &Wanted, backoff: &Backoff) -> Result<(String, Entry), PinError> {
    let Wanted { repo, revision, .. } = wanted;
    // A branch may contain slashes, which must not become folders of the API.
    let encoded_revision = encoded(revision).replace('/', "%2F");
    let url = hub.api_url(&format!("models/{repo}/revision/{encoded_revision}"));
    let (model, _): (Model, _) = hub.json(&url, backoff)?;
    if !is_revision(&model.sha) {
        return Err(PinError::NoCommit {
            repo: repo.clone(),
            revision: revision.clone(),
            sha: model.sha,
        });
    }
    let item = choose(wanted, tree(hub, repo, &model.sha, backoff)?)?;
    let file = item.path;
    if is_split(&file) {
        return Err(PinError::Split { file });
    }
    let large = item
        .lfs
        .and_then(|lfs| Some((lfs.oid.parse::<Digest>().ok()?, lfs.size)));
    let Some((sha256, size)) = large else {
        return Err(PinError::NoDigest { file });
    };
    let name = wanted
        .name
        .clone()
        .map_or_else(|| name_of(repo, &file), Ok)?;
    let trained_context = model
        .gguf
        .as_ref()
        .and_then(|gguf| gguf.context_length)
        // A projector has no context of its own.
        .filter(|tokens| *tokens > 0 && !is_projector(&file));
    let entry = Entry {
        licence: model.licence(),
        source: Source::HuggingFace {
            repo: repo.clone(),
            revision: model.sha,
            file,
        },
        sha256,
        size,
        trained_context,
        mmproj: None,
        draft: None,
    };
    Ok((name, entry))
}

impl Model {
    fn licence(&self) -> String {
        let card = self.card.as_ref().and_then(|card| card.license.as_ref());
        let from_card = match card {
            Some(serde_json::Value::Array(all)) => all.first().and_then(|one| one.as_str()),
            Some(one) => one.as_str(),
            None => None,
        };
        let from_tags = || {
            self.tags
                .iter()
                .find_map(|tag| tag.strip_prefix("license:"))
        };
        from_card
            .or_else(from_tags)
            .map(|licence| licence.replace(char::is_control, " "))
            .filter(|licence| !licence.trim().is_empty())
            .unwrap_or_else(|| "unknown".to_owned())
    }
}

fn tree(
    hub: &Hub,
    repo: &str,
    commit: &str,
    backoff: &Backoff,
) -> Result<Vec<TreeItem>, FetchError> {
    let mut items = Vec::new();
    let mut url = hub.api_url(&format!("models/{repo}/tree/{commit}?recursive=true"));
    for _ in 0..MOST_PAGES {
        let (page, next): (Vec<TreeItem>, _) = hub.json(&url, backoff)?;
        items.extend(page);
        match next {
            Some(next) => url = next,
            None => break,
        }
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_names_repository_revision_and_quantization() {
        let read = |source| Wanted::parse(source, None, None).map(|w| (w.repo, w.revision, w.file));
        let text = str::to_owned;
        let main = || text("main");
        assert_eq!(read("hf:a/b").unwrap(), (text("a/b"), main(), None));
        assert_eq!(read("a/b@v1").unwrap(), (text("a/b"), text("v1"), None));
        assert_eq!(
            read("a/b:Q8_0").unwrap(),
            (text("a/b"), main(), Some(text("Q8_0")))
        );
        for bad in [
            "b",
            "a/b/c",
            "../b",
            "a/b@",
            "a/b:",
            "pypi:x",
            "https://h/a/b",
        ] {
            assert!(matches!(read(bad), Err(PinError::Source(_))), "{bad}");
        }
    }
}
