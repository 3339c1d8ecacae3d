//! What the loaded model does for requests, and what it answers to those that want something else.

use super::error::ApiError;
use crate::{
    chat::Chat,
    engine::{
        Engine, Watch,
        embed::{self, Pairing},
        senses::Senses,
        task::Pooling,
    },
};

/// The engine, with what belongs to its kind.
pub enum Work {
    Generate {
        engine: Engine,
        chat: Chat,
        /// What images are seen and sounds heard through.
        senses: Option<Senses>,
    },
    Embed {
        engine: embed::Engine,
    },
    Rank {
        engine: embed::Engine,
        pairing: Pairing,
        scale: Scale,
    },
}

/// What a reranker's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Any number; 0 is as likely relevant as not.
    Logit,
    /// From 0 to 1.
    Probability,
}

/// Sizes that clients look at.
pub(super) struct Size {
    /// Tokens of one sequence, or of the longest text.
    pub(super) context: u32,
    /// Sequences or texts computed together.
    pub(super) parallel: u32,
}

impl Work {
    /// For those who look after the engine thread.
    pub fn watch(&self) -> Watch {
        match self {
            Self::Generate { engine, .. } => engine.watch(),
            Self::Embed { engine } | Self::Rank { engine, .. } => engine.watch(),
        }
    }

    /// As the configuration spells it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Generate { .. } => "chat",
            Self::Embed { .. } => "embedding",
            Self::Rank { .. } => "rerank",
        }
    }

    pub(super) fn size(&self) -> Size {
        match self {
            Self::Generate { engine, .. } => {
                let shape = engine.shape();
                Size {
                    context: shape.context,
                    parallel: shape.sequences,
                }
            }
            Self::Embed { engine } | Self::Rank { engine, .. } => {
                let facts = engine.facts();
                Size {
                    context: facts.longest,
                    parallel: facts.texts,
                }
            }
        }
    }

    pub(super) fn generator(&self) -> Result<(&Engine, &Chat), ApiError> {
        match self {
            Self::Generate { engine, chat, .. } => Ok((engine, chat)),
            Self::Embed { .. } | Self::Rank { .. } => Err(self.cannot(
                "generate text",
                "a model that generates (model.kind = 'chat, for models that can)",
            )),
        }
    }

    /// `None`: the model takes neither images nor sounds.
    pub(super) fn senses(&self) -> Option<&Senses> {
        match self {
            Self::Generate { senses, .. } => senses.as_ref(),
            Self::Embed { .. } | Self::Rank { .. } => None,
        }
    }

    pub(super) fn sees(&self) -> bool {
        self.senses().is_some_and(Senses::sees)
    }

    pub(super) fn hears(&self) -> bool {
        self.senses().is_some_and(|senses| senses.hears().is_some())
    }

    pub(super) fn listener(&self) -> Result<&Chat, ApiError> {
        match self {
            Self::Generate { chat, .. } if self.hears() => Ok(chat),
            _ => Err(self.cannot(
                "hear",
                "a model with a projector of sounds (model.projector)",
            )),
        }
    }

    pub(super) fn embedder(&self) -> Result<&embed::Engine, ApiError> {
        match self {
            Self::Embed { engine } => Ok(engine),
            Self::Generate { .. } | Self::Rank { .. } => Err(self.cannot(
                "embed",
                "an embedding model (model.kind = 'embedding takes vectors out of any model)",
            )),
        }
    }

    pub(super) fn ranker(&self) -> Result<(&embed::Engine, &Pairing, Scale), ApiError> {
        match self {
            Self::Rank {
                engine,
                pairing,
                scale,
            } => Ok((engine, pairing, *scale)),
            Self::Generate { .. } | Self::Embed { .. } => Err(self.cannot(
                "rank",
                "a reranking model (one with a classifier; model.kind = 'rerank)",
            )),
        }
    }

    fn cannot(&self, what: &str, needs: &str) -> ApiError {
        let serves = match self {
            Self::Generate { .. } => "generates text",
            Self::Embed { engine } if engine.facts().pooling == Pooling::None => {
                "gives a vector for each token"
            }
            Self::Embed { .. } => "embeds",
            Self::Rank { .. } => "ranks documents",
        };
        ApiError::WrongWork(format!(
            "the model served here {serves} and cannot {what}: that needs {needs}"
        ))
    }
}
