//! SIGHUP: the configuration is read again, and what may change while the server runs does.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::task;
use tracing::{error, info, warn};

use super::settings;
use crate::{api::Surface, config::Config, log, systemd};

/// What a reload changes; of `limits` all but those beside.
const RELOADED: [&str; 9] = [
    "auth",
    "cache.normalize",
    "cache.share",
    "cors",
    "images",
    "limits",
    "log.level",
    "model.aliases",
    "model.defaults",
];
/// The sizes and times of what was made at the start.
const FIXED: [&str; 4] = [
    "limits.drain",
    "limits.queue",
    "limits.receive",
    "limits.send",
];

#[derive(Clone)]
pub(crate) struct Reload(Arc<Inner>);

struct Inner {
    /// What is in force.
    config: Mutex<Config>,
    reread: Box<dyn Fn() -> Result<Config, String> + Send + Sync>,
    surface: Surface,
}

impl Reload {
    pub(super) fn new(
        config: Config,
        reread: impl Fn() -> Result<Config, String> + Send + Sync + 'static,
        surface: Surface,
    ) -> Self {
        Self(Arc::new(Inner {
            config: Mutex::new(config),
            reread: Box::new(reread),
            surface,
        }))
    }

    /// Takes over all of the new configuration that may change now, or nothing if anything in it is wrong.
    pub(super) async fn run(&self) {
        systemd::reloading();
        let inner = Arc::clone(&self.0);
        // Reading and checking take a while, and streams go on.
        match task::spawn_blocking(move || inner.apply()).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => error!("the configuration stays as it is: {why}"),
            Err(panic) => error!("the configuration stays as it is: {panic}"),
        }
        systemd::reloaded();
    }
}

impl Inner {
    fn apply(&self) -> Result<(), String> {
        let new = (self.reread)()?;
        let settings = settings(&new).map_err(|error| error.to_string())?;
        self.surface.change(settings)?;
        log::change(&new.log.level).map_err(|error| error.to_string())?;
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        for name in differences(&config, &new) {
            if reloads(&name) {
                info!(setting = name, "changed");
            } else {
                warn!(setting = name, "changes at the next restart only");
            }
        }
        *config = new;
        info!("the configuration was read again");
        Ok(())
    }
}

fn reloads(name: &str) -> bool {
    let within = |group: &&str| {
        let rest = name.strip_prefix(*group);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    !FIXED.contains(&name) && RELOADED.iter().any(within)
}

/// The options that two configurations set differently.
fn differences(old: &Config, new: &Config) -> Vec<String> {
    let mut names = Vec::new();
    let value = |config| serde_json::to_value(config).unwrap_or_default();
    compare("", &value(old), &value(new), &mut names);
    names
}

fn compare(path: &str, old: &Value, new: &Value, names: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in new {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                compare(&path, old.get(name).unwrap_or(&Value::Null), value, names);
            }
        }
        _ if old == new => {}
        _ => names.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, KnownModel, Source};

    #[test]
    fn what_differs_is_named_and_said_to_change_now_or_later() {
        let known = KnownModel {
            name: "m".into(),
            trained_context: None,
        };
        let read = |text: &str| {
            let source = Source::new("t.ncl", format!("{{ model.name = \"m\", {text} }}"));
            config::load(&source, &[], std::slice::from_ref(&known)).unwrap()
        };
        let old = read("");
        let new = read(
            r#"engine.context = 512, limits = {queue = 3, max_tokens = 9}, auth.key_files = ["k"], model.aliases = ["a"]"#,
        );
        let told: Vec<_> = differences(&old, &new)
            .into_iter()
            .map(|name| (reloads(&name), name))
            .collect();
        let told: Vec<_> = told
            .iter()
            .map(|(now, name)| (*now, name.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (true, "model.aliases"),
                (false, "engine.context"),
                (false, "limits.queue"),
                (true, "limits.max_tokens"),
                (true, "auth.key_files"),
            ]
        );
        assert_eq!(differences(&old, &old), Vec::<String>::new());
    }
}
