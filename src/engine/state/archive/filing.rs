//! The engine's last act: what was used last goes to the disk, as much as may lie there and as there is time for.

use std::{
    collections::HashSet,
    fs::File,
    time::{Duration, Instant, SystemTime},
};

use super::{super::file, Archive, FileError, Filed, Name, Saved, is_within, name_of};
use crate::engine::prefix::Prefix;

/// What is being filed, the last used first.
pub(crate) struct Filing {
    archive: Archive,
    until: Instant,
    /// What stays, of what was there and of what came.
    kept: HashSet<Name>,
    written: usize,
    /// Nothing more can be written.
    over: bool,
}

impl Archive {
    pub(crate) fn file(self) -> Filing {
        Filing {
            until: Instant::now() + self.shelf.within,
            archive: self,
            kept: HashSet::new(),
            written: 0,
            over: false,
        }
    }
}

impl Filing {
    /// Whether a state of these tokens would be written, so that it is worth copying.
    pub(crate) fn wants(&mut self, prefix: &Prefix) -> bool {
        if self.over || prefix.tenant.is_none() {
            return false;
        }
        let name = name_of(&self.archive.identity, prefix);
        if self.archive.filed.iter().any(|filed| filed.name == name) {
            self.keep(name);
            return false;
        }
        let kept = |filed: &Filed| {
            self.kept.contains(&filed.name)
                && filed.prefix.solid >= prefix.solid
                && is_within(prefix, &filed.prefix)
        };
        !self.archive.filed.iter().any(kept)
    }

    /// Writes one, in place of what it contains and of what is longest unused.
    pub(crate) fn put(&mut self, saved: &Saved) {
        let Archive {
            identity, shelf, ..
        } = &self.archive;
        let bytes = file::length(identity, saved);
        let budget = shelf.bytes;
        if bytes > budget {
            return;
        }
        self.remove(
            |filed| is_within(&filed.prefix, &saved.prefix),
            "a longer one takes its place",
        );
        while self.bytes() + bytes > budget {
            let others = &self.archive.filed;
            let oldest = others.iter().find(|filed| !self.kept.contains(&filed.name));
            let Some(name) = oldest.map(|filed| filed.name.clone()) else {
                return; // those that were used later fill the room
            };
            self.remove(|filed| filed.name == name, "others were used later");
        }
        let Archive {
            identity, shelf, ..
        } = &self.archive;
        let name = name_of(identity, &saved.prefix);
        match file::write(&shelf.folder.file(&name), identity, saved, Some(self.until)) {
            Ok(bytes) => {
                let mut prefix = saved.prefix.clone();
                for checkpoint in &mut prefix.checkpoints {
                    checkpoint.state = std::sync::Arc::default();
                }
                let filed = Filed {
                    name: name.clone(),
                    prefix,
                    bytes,
                };
                self.archive.filed.push(filed);
                self.written += 1;
                self.keep(name);
            }
            Err(FileError::Late) => {
                let within = shelf.within;
                tracing::warn!(?within, "the time is over: not every prompt is on the disk");
                self.over = true;
            }
            Err(error) => {
                tracing::warn!(%error, "computed prompts cannot be written any more");
                self.over = true;
            }
        }
    }

    pub(crate) fn finish(self) {
        let (mib, prompts) = (self.bytes() >> 20, self.archive.filed.len());
        tracing::info!(
            written = self.written,
            prompts,
            mib,
            "computed prompts are on the disk"
        );
    }

    fn bytes(&self) -> u64 {
        self.archive.filed.iter().map(|filed| filed.bytes).sum()
    }

    /// Of those that stay, the later ones were used before the earlier ones.
    fn keep(&mut self, name: Name) {
        let age = Duration::from_millis(self.kept.len() as u64);
        let path = self.archive.shelf.folder.file(&name);
        let used = SystemTime::now() - age;
        let noted = File::options().append(true).open(path);
        if let Err(error) = noted.and_then(|file| file.set_modified(used)) {
            tracing::debug!(%error, "the time of use could not be noted");
        }
        self.kept.insert(name);
    }

    /// Removes what `goes` of that which need not stay.
    fn remove(&mut self, goes: impl Fn(&Filed) -> bool, why: &str) {
        let Self { archive, kept, .. } = self;
        archive.filed.retain(|filed| {
            let stays = kept.contains(&filed.name) || !goes(filed);
            if !stays {
                archive.shelf.folder.remove(&filed.name, &why);
            }
            stays
        });
    }
}
