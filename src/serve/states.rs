//! The folders where computed states may lie, and what these states belong to.

use std::{
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Failure, identity, locate::Proved};
use crate::{
    config::{CacheConfig, Config},
    engine::{
        fit::Plan,
        llama,
        state::{Folder, Identity, Places, Shelf},
    },
};

/// Writing at the end takes no longer than a running answer may, and never longer than the engine has to stop.
const LONGEST_FILING: Duration = Duration::from_secs(20);
const SHORTEST_FILING: Duration = Duration::from_secs(1);
/// Servers of one model that share a state directory.
const MOST_SERVERS: u32 = 64;

/// The folders that the configuration names.
#[derive(Debug, Clone, Default)]
pub(super) struct Folders {
    archive: Option<Folder>,
    slots: Option<PathBuf>,
}

/// Where states of the model that is loaded may lie; by default nowhere.
#[derive(Debug, Default)]
pub(crate) struct States {
    folders: Folders,
    model: String,
    projector: Option<String>,
}

impl Folders {
    /// Makes the folders, and takes that of the cache for this process alone.
    pub(super) fn open(cache: &CacheConfig, model: &str) -> Result<Self, Failure> {
        let archive = match &cache.folder {
            _ if cache.disk == 0 => None,
            Some(path) => Some(take(path.clone())?.ok_or_else(|| Failure::Place {
                field: "cache.folder",
                path: path.clone(),
                source: io::Error::other("another server uses it"),
            })?),
            None => Some(take_any(&prompts(|name| env::var_os(name))?, model)?),
        };
        if let Some(path) = &cache.slots {
            Folder::make(path).map_err(|source| Failure::Place {
                field: "cache.slots",
                path: path.clone(),
                source,
            })?;
        }
        Ok(Self {
            archive,
            slots: cache.slots.clone(),
        })
    }
}

/// `None`: another process has it.
fn take(path: PathBuf) -> Result<Option<Folder>, Failure> {
    match Folder::open(path.clone()) {
        Ok(folder) => Ok(Some(folder)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(source) => Err(Failure::Place {
            field: "cache.folder",
            path,
            source,
        }),
    }
}

/// The first folder for the model that no other server has.
fn take_any(prompts: &Path, model: &str) -> Result<Folder, Failure> {
    let plain = |letter: char| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => letter,
        _ => '_',
    };
    let name: String = model.chars().map(plain).collect();
    for number in 1..=MOST_SERVERS {
        let folder = prompts.join(format!("{name}-{number}"));
        if let Some(folder) = take(folder)? {
            return Ok(folder);
        }
    }
    Err(Failure::Place {
        field: "cache.folder",
        path: prompts.join(name),
        source: io::Error::other("other servers use all of its numbers"),
    })
}

/// `prompts` in systemd's state directory, else in the user's (XDG).
fn prompts(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Failure> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let given = set("STATE_DIRECTORY").and_then(|list| env::split_paths(&list).next());
    let user = || {
        let state = set("XDG_STATE_HOME").map(PathBuf::from);
        let state = state.filter(|path| path.is_absolute());
        let home = || set("HOME").map(|home| Path::new(&home).join(".local/state"));
        state.or_else(home).map(|path| path.join("llm-server"))
    };
    let given = given.filter(|path| path.is_absolute());
    given
        .or_else(user)
        .map(|path| path.join("prompts"))
        .ok_or(Failure::NoFolder)
}

impl States {
    pub(super) fn new(folders: Folders, proved: &Proved) -> Self {
        Self {
            folders,
            model: proved.model.sha256.to_string(),
            projector: proved.projector.as_ref().map(|it| it.sha256.to_string()),
        }
    }

    /// After [`llama::init`].
    pub(super) fn places(&self, config: &Config, plan: &Plan) -> Places {
        let within = config.limits.drain;
        let archive = |folder: &Folder| Shelf {
            folder: folder.clone(),
            bytes: u64::from(config.cache.disk) << 20,
            within: within.clamp(SHORTEST_FILING, LONGEST_FILING),
        };
        Places {
            identity: self.identity(config, plan),
            archive: self.folders.archive.as_ref().map(archive),
            slots: self.folders.slots.clone(),
        }
    }

    /// All that decides what a state's bytes mean. Which device computes them and how does not, unless their every bit
    /// shall be the same.
    fn identity(&self, config: &Config, plan: &Plan) -> Identity {
        let engine = &config.engine;
        let spelled = |value: serde_json::Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        let projector = self.projector.as_deref();
        let bits = if engine.reproducible {
            identity::bits(engine, &llama::build())
        } else {
            "any".to_owned()
        };
        Identity::new([
            ("model", self.model.clone()),
            ("projector", projector.unwrap_or("none").to_owned()),
            ("engine", llama::build().source_sha256),
            ("engine.context", plan.context.to_string()),
            ("engine.kv.k", engine.kv.k.name().to_owned()),
            ("engine.kv.v", engine.kv.v.name().to_owned()),
            (
                "engine.flash_attention",
                spelled(serde_json::json!(engine.flash_attention)),
            ),
            ("bits", bits),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_lie_in_systemds_directory_or_the_users_or_nowhere() {
        let found = |set: &[(&str, &str)]| {
            let variable = |name: &str| {
                let set = set.iter().find(|(known, _)| *known == name);
                set.map(|(_, value)| OsString::from(value))
            };
            prompts(variable)
                .ok()
                .map(|path| path.display().to_string())
        };
        let home = ("HOME", "/home/u");
        let state = ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b");
        assert_eq!(found(&[state, home]).as_deref(), Some("/var/lib/a/prompts"));
        let user = "/home/u/.local/state/llm-server/prompts";
        assert_eq!(
            found(&[home, ("XDG_STATE_HOME", "not/absolute")]).as_deref(),
            Some(user)
        );
        let user = "/s/llm-server/prompts";
        assert_eq!(
            found(&[home, ("XDG_STATE_HOME", "/s")]).as_deref(),
            Some(user)
        );
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn servers_of_one_model_have_a_folder_each_and_names_lead_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let first = take_any(root.path(), "../org/m").unwrap();
        let _second = take_any(root.path(), "../org/m").unwrap();
        let mut names: Vec<_> = std::fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort_unstable();
        assert_eq!(names, [".._org_m-1", ".._org_m-2"]);
        drop(first);
        take_any(root.path(), "../org/m").unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 2);
    }
}
