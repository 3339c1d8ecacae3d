//! Computed states beyond the sequence that computed them: in files, across restarts, at a client's word.

mod archive;
mod errand;
mod file;
mod slots;

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use self::{
    archive::Folder,
    errand::NotDone,
    file::FileError,
    slots::{BadName, Done, FileName, SlotError, Slots},
};
pub(crate) use self::{
    archive::{Archive, Fetched, Name as ArchiveName},
    errand::{Act, Errand},
};
use super::prefix::Prefix;

/// A sequence's tokens and its state after the last of them, apart from any sequence.
#[derive(Debug, Clone)]
pub struct Saved {
    pub(crate) prefix: Prefix,
    pub(crate) state: Arc<Vec<u8>>,
}

impl Saved {
    pub fn tokens(&self) -> usize {
        self.prefix.tokens.len()
    }

    /// Of the state and of its checkpoints.
    pub(crate) fn bytes(&self) -> usize {
        let checkpoints = self.prefix.checkpoints.iter();
        let more: usize = checkpoints.map(|checkpoint| checkpoint.state.len()).sum();
        self.state.len() + more
    }
}

/// What a state belongs to, as named facts: to a context of which any of them differs it means nothing, or something else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity(Vec<(String, String)>);

impl Identity {
    /// In a fixed order.
    pub fn new<const N: usize>(facts: [(&str, String); N]) -> Self {
        let facts = facts.map(|(name, value)| (name.to_owned(), value));
        Self(facts.into())
    }

    /// In what `other` differs from this one, in words.
    fn difference(&self, other: &Self) -> Option<String> {
        let value = |of: &Self, name: &str| {
            let fact = of.0.iter().find(|(known, _)| known == name);
            fact.map_or_else(|| "unknown".to_owned(), |(_, value)| value.clone())
        };
        let names = self.0.iter().chain(&other.0).map(|(name, _)| name);
        let differs = |name: &&String| value(self, name) != value(other, name);
        let name = names.into_iter().find(differs)?;
        let (here, there) = (value(self, name), value(other, name));
        Some(format!("`{name}` is {there} there and {here} here"))
    }
}

/// Where the states of one engine may lie as files.
#[derive(Debug, Default)]
pub struct Places {
    pub identity: Identity,
    /// For what is to outlive the process.
    pub archive: Option<Shelf>,
    /// For what clients save and restore.
    pub slots: Option<PathBuf>,
}

/// A folder of this process, and what it may hold.
#[derive(Debug)]
pub struct Shelf {
    pub folder: Folder,
    pub bytes: u64,
    /// How long writing may take when the engine stops.
    pub within: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fact_that_differs_is_named_and_so_is_one_that_only_one_side_knows() {
        let facts = |model: &str| Identity::new([("model", model.into()), ("keys", "f16".into())]);
        assert_eq!(facts("a").difference(&facts("a")), None);
        let other = facts("a").difference(&facts("b")).unwrap();
        assert_eq!(other, "`model` is b there and a here");
        let newer = Identity::new([
            ("model", "a".into()),
            ("keys", "f16".into()),
            ("adapters", "c".into()),
        ]);
        let here = "`adapters` is c there and unknown here";
        assert_eq!(facts("a").difference(&newer).unwrap(), here);
        let there = "`adapters` is unknown there and c here";
        assert_eq!(newer.difference(&facts("a")).unwrap(), there);
    }
}
