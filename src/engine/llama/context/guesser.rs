//! Who guesses what a model says next, and what has to follow the model for that.

use std::sync::Arc;

use super::Llama;
use crate::engine::{
    draft::Drafter,
    llama::{Buffer, LoadError, heads::Heads, params},
    model::Row,
};

/// Who guesses what comes next.
pub(super) enum Guesser {
    /// Another model.
    Other(Box<dyn Drafter>),
    /// The model's own prediction layers.
    Heads(Box<Heads>),
}

impl Guesser {
    pub(super) fn drafter(&mut self) -> &mut dyn Drafter {
        match self {
            Self::Other(drafter) => &mut **drafter,
            Self::Heads(heads) => &mut **heads,
        }
    }
}

impl Llama {
    /// Has another one guess what comes next.
    #[must_use]
    pub fn with_drafter(mut self, drafter: Box<dyn Drafter>) -> Self {
        self.guesser = Some(Guesser::Other(drafter));
        self
    }

    pub(super) fn heads(&self) -> Result<Heads, LoadError> {
        let context = self.config.context;
        let params = params::heads(&self.config, context, &self.settings)?;
        Heads::new(Arc::clone(&self.weights), params, context)
    }

    pub(super) fn own_heads(&mut self) -> Option<&mut Heads> {
        match &mut self.guesser {
            Some(Guesser::Heads(heads)) => Some(heads),
            Some(Guesser::Other(_)) | None => None,
        }
    }

    /// The prediction layers see what was computed. If they fail, the model goes on without them.
    pub(super) fn follow(&mut self, rows: &[Row]) {
        let context = self.context;
        if let Some(heads) = self.own_heads()
            && let Err(fault) = heads.follow(context, rows)
        {
            tracing::warn!(
                ?fault,
                "the prediction layers failed: nothing is drafted any more until a restart"
            );
            self.guesser = None;
        }
    }

    /// The memory of the context of the prediction layers.
    pub fn heads_buffers(&self) -> Vec<Buffer> {
        match &self.guesser {
            Some(Guesser::Heads(heads)) => heads.buffers(),
            Some(Guesser::Other(_)) | None => Vec::new(),
        }
    }
}
