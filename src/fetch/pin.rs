//! A new entry for `models.lock`, from what a hub says about a file; the file itself is not downloaded.

use serde::Deserialize;

use super::{Backoff, FetchError, Hub, hub::encoded};
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

/// Files to choose from, listed on lines of their own.
#[derive(Debug)]
pub struct Candidates(Vec<(String, u64)>);

impl std::fmt::Display for Candidates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (path, size) in &self.0 {
            write!(f, "\n  {path}  ({:.1} MB)", *size as f64 / 1e6)?;
        }
        Ok(())
    }
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

#[derive(Deserialize)]
struct TreeItem {
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    /// The SHA-256 of the content.
    oid: String,
    size: u64,
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
    let name = wanted.name.clone().map_or_else(|| name_of(&file), Ok)?;
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

/// An exact path wins; else the one GGUF file whose path contains the words asked for.
fn choose(wanted: &Wanted, items: Vec<TreeItem>) -> Result<TreeItem, PinError> {
    let repo = || wanted.repo.clone();
    let is_gguf = |item: &TreeItem| item.path.to_ascii_lowercase().ends_with(".gguf");
    let mut all: Vec<_> = items.into_iter().filter(is_gguf).collect();
    if all.is_empty() {
        return Err(PinError::NoGguf { repo: repo() });
    }
    let Some(file) = &wanted.file else {
        let models = |item: &TreeItem| !is_projector(&item.path);
        return only(all, models).map_err(|all| PinError::Ambiguous {
            repo: repo(),
            candidates: candidates(&all),
        });
    };
    if let Some(exact) = all.iter().position(|item| item.path == *file) {
        return Ok(all.swap_remove(exact));
    }
    let words = file.to_ascii_lowercase();
    let wants_projector = words.contains("mmproj");
    let fits = |item: &TreeItem| {
        wants_projector == is_projector(&item.path) && has_words(&item.path, &words)
    };
    if !all.iter().any(fits) {
        return Err(PinError::NoFile {
            repo: repo(),
            file: file.clone(),
            candidates: candidates(&all),
        });
    }
    only(all, fits).map_err(|several| PinError::Ambiguous {
        repo: repo(),
        candidates: candidates(&several),
    })
}

/// The one item that `fits`, else those that do.
fn only(items: Vec<TreeItem>, fits: impl Fn(&TreeItem) -> bool) -> Result<TreeItem, Vec<TreeItem>> {
    let mut fitting: Vec<_> = items.into_iter().filter(fits).collect();
    match fitting.len() {
        1 => Ok(fitting.swap_remove(0)),
        _ => Err(fitting),
    }
}

/// Whether `words` stand in `path` as whole words: `q4_k` is not in `q4_k_m`, nor in `iq4_k`.
fn has_words(path: &str, words: &str) -> bool {
    let path = path.to_ascii_lowercase();
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    path.match_indices(words).any(|(at, found)| {
        let before = path[..at].chars().next_back();
        let after = path[at + found.len()..].chars().next();
        !inside(before) && !inside(after)
    })
}

fn candidates(items: &[TreeItem]) -> Candidates {
    let size = |item: &TreeItem| item.lfs.as_ref().map_or(item.size, |lfs| lfs.size);
    let mut list: Vec<_> = items
        .iter()
        .map(|item| (item.path.clone(), size(item)))
        .collect();
    list.sort();
    Candidates(list)
}

fn is_projector(path: &str) -> bool {
    path.to_ascii_lowercase().contains("mmproj")
}

/// `…-00001-of-00003.gguf`.
fn is_split(path: &str) -> bool {
    let stem = path.trim_end_matches(".gguf");
    let mut words = stem.rsplit('-');
    let number = |word: Option<&str>| {
        word.is_some_and(|word| word.len() == 5 && word.bytes().all(|byte| byte.is_ascii_digit()))
    };
    number(words.next()) && words.next() == Some("of") && number(words.next())
}

/// `Q4/Some Model.Q4_K_M.gguf` becomes `some-model.q4_k_m`.
fn name_of(file: &str) -> Result<String, PinError> {
    let stem = file.rsplit('/').next().unwrap_or(file);
    let stem = stem.strip_suffix(".gguf").unwrap_or(stem);
    let name: String = stem
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | '.' | '_' | '-') => c,
            _ => '-',
        })
        .collect();
    if is_name(&name) {
        Ok(name)
    } else {
        Err(PinError::Name(name))
    }
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

    #[test]
    fn a_quantization_is_a_whole_word() {
        assert!(has_words("sub/Tiny-Q4_K_M.gguf", "q4_k_m"));
        assert!(has_words("Tiny.Q8_0.gguf", "q8_0"));
        assert!(!has_words("Tiny-Q4_K_M.gguf", "q4_k"));
        assert!(!has_words("Tiny-IQ4_XS.gguf", "q4_xs"));
    }

    #[test]
    fn pieces_of_a_split_model_are_known_by_their_name() {
        assert!(is_split("Q8_0/Big-Q8_0-00001-of-00003.gguf"));
        assert!(!is_split("Big-of-00003.gguf"));
        assert!(!is_split("Big-Q8_0.gguf"));
    }

    #[test]
    fn a_name_is_made_of_the_file_name() {
        assert_eq!(
            name_of("Q4/Some Model.Q4_K_M.gguf").unwrap(),
            "some-model.q4_k_m"
        );
    }
}
