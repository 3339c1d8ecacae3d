//! What a model is to do: continue text, or read it and answer with vectors or scores (pure).

use serde::Serialize;

use super::gguf::Header;
use crate::config::{self, EngineConfig, Kind};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    Generate,
    Encode(Encoding),
}

/// How texts are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Encoding {
    pub pooling: Pooling,
    /// Texts read in one step.
    pub texts: u32,
}

/// How the vectors of a text's tokens become one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// A vector for each token.
    None,
    Mean,
    /// The first token's vector.
    Cls,
    /// The last token's vector.
    Last,
    /// The classifier's score.
    Rank,
}

/// Architectures whose graph ends with vectors, not with a next token.
const ENCODERS: [&str; 10] = [
    "bert",
    "eurobert",
    "gemma-embedding",
    "jina-bert-v2",
    "jina-bert-v3",
    "modern-bert",
    "neo-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "t5encoder",
];

/// Texts of a few words fill a step of some hundred tokens.
const TEXTS: u32 = 64;

/// Whether the model has no next token to give.
pub(crate) fn only_encodes(header: &Header) -> bool {
    ENCODERS.contains(&header.architecture.as_str())
}

impl Task {
    /// What the configuration and the file's header come to. `Err`: `model.kind` cannot be followed, and why.
    pub(crate) fn of(header: &Header, kind: Kind, config: &EngineConfig) -> Result<Self, String> {
        let named = header.pooling.and_then(Pooling::named);
        let wanted = Pooling::wanted(config.pooling);
        // Some files of chat models name `none`.
        let of_file = named.filter(|pooling| *pooling != Pooling::None);
        let fallback = if only_encodes(header) {
            Pooling::Mean
        } else {
            Pooling::Last
        };
        let pooling = match kind {
            Kind::Chat if only_encodes(header) => {
                return Err(format!(
                    "'chat needs a model that generates, and this one ({}) only reads; accepted: 'auto, 'embedding, 'rerank",
                    header.architecture
                ));
            }
            Kind::Chat => return Ok(Self::Generate),
            Kind::Auto => match wanted.or(of_file) {
                None if !only_encodes(header) => return Ok(Self::Generate),
                pooling => pooling.or(named).unwrap_or(fallback),
            },
            Kind::Embedding => wanted
                .or(of_file.filter(|pooling| *pooling != Pooling::Rank))
                .unwrap_or(fallback),
            Kind::Rerank => Pooling::Rank,
        };
        if pooling == Pooling::Rank && !has_classifier(header) {
            return Err(format!(
                "scores need a model with a classifier, and this one ({}) has no tensor cls or cls.output; accepted: 'auto, 'embedding{}",
                header.architecture,
                if only_encodes(header) { "" } else { ", 'chat" }
            ));
        }
        // States of a fixed size take memory for each text; bits that must not change need each text alone.
        let texts = match (config.reproducible, header.keeps_states) {
            (true, _) => 1,
            (false, true) => config.parallel,
            (false, false) => TEXTS,
        };
        Ok(Self::Encode(Encoding {
            pooling,
            texts: texts.min(config.ubatch),
        }))
    }

    pub(crate) fn encoding(self) -> Option<Encoding> {
        match self {
            Self::Generate => None,
            Self::Encode(encoding) => Some(encoding),
        }
    }
}

fn has_classifier(header: &Header) -> bool {
    let is = |name: &str| name == "cls.weight" || name == "cls.output.weight";
    header.tensors.iter().any(|tensor| is(&tensor.name))
}

impl Pooling {
    /// By llama.cpp's number.
    fn named(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::Mean,
            2 => Self::Cls,
            3 => Self::Last,
            4 => Self::Rank,
            _ => return None,
        })
    }

    fn wanted(wish: config::Pooling) -> Option<Self> {
        Some(match wish {
            config::Pooling::Auto => return None,
            config::Pooling::None => Self::None,
            config::Pooling::Mean => Self::Mean,
            config::Pooling::Cls => Self::Cls,
            config::Pooling::Last => Self::Last,
            config::Pooling::Rank => Self::Rank,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::gguf::Tensor, *};
    use crate::config::{KnownModel, Source};

    fn header(architecture: &str, pooling: Option<u64>) -> Header {
        Header {
            architecture: architecture.into(),
            name: None,
            layers: 1,
            prediction_layers: 0,
            trained_context: None,
            experts: 0,
            experts_used: 0,
            key_length: 0,
            value_length: 0,
            vocabulary: 0,
            kv_heads: 0,
            slides: false,
            keeps_states: false,
            pooling,
            tensors: Vec::new(),
        }
    }

    fn with_classifier(architecture: &str, pooling: Option<u64>) -> Header {
        let cls = Tensor {
            name: "cls.output.weight".into(),
            bytes: 1,
        };
        Header {
            tensors: vec![cls],
            ..header(architecture, pooling)
        }
    }

    fn task(header: &Header, settings: &str) -> Result<Task, String> {
        let known = KnownModel {
            name: "m".into(),
            trained_context: None,
        };
        let text = format!("{{ model.name = \"m\", {settings} }}");
        let config = config::load(&Source::new("t.ncl", text), &[], &[known]).unwrap();
        Task::of(header, config.model.kind, &config.engine)
    }

    fn pooling(header: &Header, settings: &str) -> Option<Pooling> {
        let encoding = task(header, settings).unwrap().encoding();
        encoding.map(|encoding| encoding.pooling)
    }

    #[test]
    fn the_files_header_decides_unless_told_otherwise() {
        assert_eq!(pooling(&header("llama", None), ""), None);
        assert_eq!(pooling(&header("llama", Some(0)), ""), None);
        assert_eq!(pooling(&header("qwen3", Some(3)), ""), Some(Pooling::Last));
        assert_eq!(pooling(&header("bert", Some(2)), ""), Some(Pooling::Cls));
        assert_eq!(pooling(&header("bert", None), ""), Some(Pooling::Mean));
        assert_eq!(pooling(&header("bert", Some(0)), ""), Some(Pooling::None));
        assert_eq!(
            pooling(&with_classifier("qwen3", Some(4)), ""),
            Some(Pooling::Rank)
        );
    }

    #[test]
    fn the_configuration_goes_before_the_file() {
        let llama = header("llama", None);
        assert_eq!(
            pooling(&llama, "model.kind = 'embedding"),
            Some(Pooling::Last)
        );
        assert_eq!(
            pooling(&llama, "engine.pooling = 'mean"),
            Some(Pooling::Mean)
        );
        assert_eq!(
            pooling(&header("qwen3", Some(3)), "model.kind = 'chat"),
            None
        );
        let ranks = with_classifier("bert", Some(4));
        assert_eq!(
            pooling(&ranks, "model.kind = 'embedding"),
            Some(Pooling::Mean)
        );
    }

    #[test]
    fn what_the_model_cannot_do_is_refused_with_what_it_can() {
        let refused = |header: &Header, settings: &str| task(header, settings).unwrap_err();
        insta::assert_snapshot!(refused(&header("bert", Some(1)), "model.kind = 'chat"),
            @"'chat needs a model that generates, and this one (bert) only reads; accepted: 'auto, 'embedding, 'rerank");
        insta::assert_snapshot!(refused(&header("llama", None), "model.kind = 'rerank"),
            @"scores need a model with a classifier, and this one (llama) has no tensor cls or cls.output; accepted: 'auto, 'embedding, 'chat");
    }

    #[test]
    fn reproducible_bits_need_each_text_alone() {
        let encoding = |settings| {
            let task = task(&header("bert", Some(1)), settings).unwrap();
            task.encoding().unwrap().texts
        };
        assert_eq!(encoding(""), 64);
        assert_eq!(encoding("engine.reproducible = true"), 1);
        assert_eq!(
            encoding("engine = {ubatch = 16, batch = 16, parallel = 1}"),
            16
        );
    }
}
