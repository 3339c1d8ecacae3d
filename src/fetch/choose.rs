//! Which file of a repository is meant, and what its entry is called.

use std::fmt;

use serde::Deserialize;

use super::pin::{PinError, Wanted};
use crate::lock::is_name;

#[derive(Deserialize)]
pub(super) struct TreeItem {
    pub(super) path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    pub(super) lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
pub(super) struct LargeFile {
    /// The SHA-256 of the content.
    pub(super) oid: String,
    pub(super) size: u64,
}

/// Files to choose from, listed on lines of their own.
#[derive(Debug)]
pub struct Candidates(Vec<(String, u64)>);

impl fmt::Display for Candidates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, size) in &self.0 {
            write!(f, "\n  {path}  ({:.1} MB)", *size as f64 / 1e6)?;
        }
        Ok(())
    }
}

/// An exact path wins; else the one GGUF file whose path contains the words asked for.
pub(super) fn choose(wanted: &Wanted, items: Vec<TreeItem>) -> Result<TreeItem, PinError> {
    let repo = || wanted.repo.clone();
    let is_gguf = |item: &TreeItem| item.path.to_ascii_lowercase().ends_with(".gguf");
    let mut all: Vec<_> = items.into_iter().filter(is_gguf).collect();
    if all.is_empty() {
        return Err(PinError::NoGguf { repo: repo() });
    }
    let Some(file) = &wanted.file else {
        let models = |item: &TreeItem| !is_projector(&item.path);
        return only(all, models).map_err(|several| match several[..] {
            [] => PinError::NoGguf { repo: repo() },
            _ => PinError::Ambiguous {
                repo: repo(),
                candidates: candidates(&several),
            },
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

pub(super) fn is_projector(path: &str) -> bool {
    path.to_ascii_lowercase().contains("mmproj")
}

/// `…-00001-of-00003.gguf`.
pub(super) fn is_split(path: &str) -> bool {
    let stem = path.trim_end_matches(".gguf");
    let mut words = stem.rsplit('-');
    let number = |word: Option<&str>| {
        word.is_some_and(|word| word.len() == 5 && word.bytes().all(|byte| byte.is_ascii_digit()))
    };
    number(words.next()) && words.next() == Some("of") && number(words.next())
}

/// `Q4/Some Model.Q4_K_M.gguf` becomes `some-model.q4_k_m`. A projector is often called no more than
/// `mmproj-F16.gguf`: it gets the repository's name in front.
pub(super) fn name_of(repo: &str, file: &str) -> Result<String, PinError> {
    let stem = file.rsplit('/').next().unwrap_or(file);
    let stem = stem
        .strip_suffix(".gguf")
        .unwrap_or(stem)
        .to_ascii_lowercase();
    let repo = repo.rsplit('/').next().unwrap_or(repo).to_ascii_lowercase();
    let model = repo.strip_suffix("-gguf").unwrap_or(&repo);
    let name = if stem.starts_with("mmproj") && !stem.contains(model) {
        format!("{model}-{stem}")
    } else {
        stem
    };
    let allowed = |c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
    let name = name.replace(|c| !allowed(c), "-");
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
        let name = |file| name_of("owner/Some-Model-GGUF", file).unwrap();
        assert_eq!(name("Q4/Some Model.Q4_K_M.gguf"), "some-model.q4_k_m");
        assert_eq!(name("mmproj-F16.gguf"), "some-model-mmproj-f16");
        assert_eq!(name("mmproj-Some-Model-F16.gguf"), "mmproj-some-model-f16");
    }
}
