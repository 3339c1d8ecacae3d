//! What is served, as digests: the same fingerprint means the same engine, weights and settings.

use std::fmt::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{config::EngineConfig, engine::llama::Build};

/// Everything that decides an answer, apart from the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Served<'a> {
    pub(crate) build: &'a Build,
    pub(crate) name: &'a str,
    pub(crate) engine: &'a EngineConfig,
    /// SHA-256 of the weights, found to be so.
    pub(crate) weights_sha256: &'a str,
    /// SHA-256 of the projector, found to be so.
    pub(crate) projector_sha256: Option<&'a str>,
    /// Of each adapter the SHA-256, found to be so, and the scale for requests that do not say otherwise.
    pub(crate) adapters: &'a [(String, f32)],
    /// SHA-256 of the model that guesses, found to be so.
    pub(crate) draft_sha256: Option<&'a str>,
    /// Text of the file `model.chat_template`.
    pub(crate) template: Option<&'a str>,
}

impl Served<'_> {
    /// `system_fingerprint`: `fp_` and 16 hex digits.
    pub(crate) fn fingerprint(&self) -> String {
        let parts = format!(
            "{}\n{}\n{}",
            self.build.source_sha256,
            self.weights_sha256,
            self.configuration_sha256()
        );
        format!("fp_{}", &sha256(parts.as_bytes())[..16])
    }

    /// Digest of the settings that decide answers. Where the server listens or logs is not among them,
    /// nor where the template lies; its text is.
    fn configuration_sha256(&self) -> String {
        let mut settings = json!({
            "model": self.name,
            "chat_template_sha256": self.template.map(|text| sha256(text.as_bytes())),
            "engine": self.engine,
        });
        let beside = [
            ("projector_sha256", self.projector_sha256),
            ("draft_sha256", self.draft_sha256),
        ];
        for (name, sha256) in beside {
            if let Some(sha256) = sha256 {
                settings[name] = sha256.into();
            }
        }
        if !self.adapters.is_empty() {
            settings["adapters"] = json!(self.adapters);
        }
        sha256(settings.to_string().as_bytes())
    }

    /// Body of `GET /version`, and what `llm-server version --json` prints.
    pub(crate) fn version(&self) -> Value {
        let mut version = built(self.build);
        version["model"] = json!({ "name": self.name, "sha256": self.weights_sha256 });
        version["configuration_sha256"] = self.configuration_sha256().into();
        version["system_fingerprint"] = self.fingerprint().into();
        version
    }
}

/// The part of the version that holds for every configuration.
pub(crate) fn built(build: &Build) -> Value {
    let mut version = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "llama_cpp": build.llama_cpp,
        "ggml": build.ggml,
        "engine_source_sha256": build.source_sha256,
        "backends": build.backends,
        "cpu_features": build.cpu_features,
        "devices": build.devices,
    });
    if let Some(cuda) = &build.cuda {
        version["cuda"] = json!(cuda);
    }
    version
}

/// Digest of what decides the last bits of what is computed, beside the weights.
pub(super) fn bits(engine: &EngineConfig, build: &Build) -> String {
    let settings = json!({
        "engine": engine,
        "cpu_features": build.cpu_features,
        "devices": build.devices,
    });
    sha256(settings.to_string().as_bytes())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, KnownModel, Source};

    fn build() -> Build {
        Build {
            llama_cpp: "b1".into(),
            ggml: "1".into(),
            source_sha256: "aa".into(),
            backends: vec!["CPU".into()],
            devices: vec!["CPU".into()],
            cpu_features: vec!["AVX2".into()],
            cuda: None,
        }
    }

    fn engine(setting: &str) -> EngineConfig {
        let known = KnownModel {
            name: "tiny".into(),
            trained_context: None,
        };
        let source = Source::new(
            "test.ncl",
            format!("{{ model.name = \"tiny\", {setting} }}"),
        );
        config::load(&source, &[], &[known]).unwrap().engine
    }

    #[test]
    fn the_fingerprint_changes_with_each_thing_that_decides_an_answer_and_with_nothing_else() {
        let (build, engine, template) = (build(), engine(""), "{{ messages }}");
        let served = Served {
            build: &build,
            name: "tiny",
            engine: &engine,
            weights_sha256: "w",
            projector_sha256: None,
            adapters: &[],
            draft_sha256: None,
            template: None,
        };
        let first = served.fingerprint();
        assert_eq!(first.len(), "fp_".len() + 16);

        let other_build = Build {
            source_sha256: "bb".into(),
            ..build.clone()
        };
        let other_engine = self::engine("engine.kv.k = 'q8_0");
        let changed = [
            Served {
                build: &other_build,
                ..served
            }
            .fingerprint(),
            Served {
                engine: &other_engine,
                ..served
            }
            .fingerprint(),
            Served {
                weights_sha256: "v",
                ..served
            }
            .fingerprint(),
            Served {
                projector_sha256: Some("p"),
                ..served
            }
            .fingerprint(),
            Served {
                adapters: &[("a".into(), 1.0)],
                ..served
            }
            .fingerprint(),
            Served {
                adapters: &[("a".into(), 0.5)],
                ..served
            }
            .fingerprint(),
            Served {
                template: Some(template),
                ..served
            }
            .fingerprint(),
        ];
        for (index, one) in changed.iter().enumerate() {
            assert_ne!(*one, first);
            assert!(!changed[..index].contains(one), "two changes gave {one}");
        }

        let elsewhere = self::engine("listen = \"127.0.0.1:1\", log.level = \"debug\"");
        assert_eq!(
            Served {
                engine: &elsewhere,
                ..served
            }
            .fingerprint(),
            first
        );
    }
}
