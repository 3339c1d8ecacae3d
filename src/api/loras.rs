//! LoRA adapters as requests see them: by number with a scale, or by a name in place of the model's.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use super::{error::ApiError, fields::Fields};
use crate::engine::{Adapters, Scaled, Token};

/// An adapter that is loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// Key in `models.lock`.
    pub name: String,
    /// What a request gives as `model` to have it alone.
    pub alias: Option<String>,
    /// Of its file.
    pub sha256: String,
    /// As configured.
    pub scale: f32,
    /// As its makers wrote down.
    pub task: String,
    pub prompt_prefix: String,
    /// Tokens of a prompt from whose last occurrence on it acts; empty: it always does.
    pub invocation: Vec<Token>,
}

/// All adapters, in the order of their numbers, and the scales that hold for requests that say nothing of them.
#[derive(Debug, Clone, Default)]
pub struct Loras {
    all: Arc<[Lora]>,
    scales: Arc<ArcSwap<Vec<f32>>>,
}

/// What a request is computed with, before its prompt is known.
#[derive(Debug, Clone)]
pub(super) struct Worn {
    adapters: Adapters,
    /// Where the only adapter waits for these tokens.
    invocation: Vec<Token>,
}

const LARGEST_SCALE: f32 = 100.0;

impl Loras {
    pub fn new(all: Vec<Lora>) -> Self {
        let scales = all.iter().map(|lora| lora.scale).collect::<Vec<_>>();
        Self {
            all: all.into(),
            scales: Arc::new(ArcSwap::from_pointee(scales)),
        }
    }

    /// Each with the scale that holds now.
    pub(super) fn now(&self) -> Vec<(&Lora, f32)> {
        self.with(&self.scales.load())
    }

    fn with(&self, scales: &[f32]) -> Vec<(&Lora, f32)> {
        self.all.iter().zip(scales.iter().copied()).collect()
    }

    /// For requests that come from now on; an adapter that is not in the list has scale 0.
    pub(super) fn change(&self, list: &[Value]) -> Result<(), ApiError> {
        self.scales.store(Arc::new(self.read("", list)?));
        Ok(())
    }

    /// Names that adapters are asked for by.
    pub(super) fn aliases(&self) -> impl Iterator<Item = &str> {
        self.all.iter().filter_map(|lora| lora.alias.as_deref())
    }

    /// What a request would have to say as `lora` to be computed with the same adapters; nothing where there are none.
    pub(super) fn told(&self, adapters: &Adapters) -> Vec<Value> {
        let scale = |adapter| {
            let scaled = adapters.scaled().iter();
            let mut scaled = scaled.filter(|one| one.adapter == adapter);
            scaled.next().map_or(0.0, |one| one.scale)
        };
        let ids = 0..self.all.len();
        ids.map(|id| json!({"id": id, "scale": scale(id)}))
            .collect()
    }

    /// What the request says of adapters: by `lora`, else by the name of its model.
    pub(super) fn wanted(&self, fields: Fields<'_>) -> Result<Worn, ApiError> {
        let called = fields.text("model")?;
        let alone = self
            .all
            .iter()
            .position(|lora| lora.alias.is_some() && lora.alias.as_deref() == called);
        let scales = match (fields.array("lora")?, alone) {
            // llama-server takes the empty list for none.
            (Some(list), _) if !list.is_empty() => self.read("lora", list)?,
            (_, Some(alone)) => {
                let mut scales = vec![0.0; self.all.len()];
                scales[alone] = self.all[alone].scale;
                scales
            }
            (_, None) => self.scales.load().to_vec(),
        };
        self.worn(&scales)
    }

    /// What a prompt is computed with when nothing is said. `Err`: in words, why the scales cannot be.
    pub(crate) fn usual(&self, prompt: &[Token]) -> Result<Adapters, String> {
        let worn = self.worn(&self.scales.load());
        worn.map(|worn| worn.on(prompt))
            .map_err(|error| error.to_string())
    }

    fn worn(&self, scales: &[f32]) -> Result<Worn, ApiError> {
        let worn = self.with(scales).into_iter().enumerate();
        let worn = worn.filter(|(_, (_, scale))| *scale != 0.0);
        let worn: Vec<_> = worn.collect();
        // As in llama-server: those that wait for their tokens do so only where no other acts from the start.
        let mut waiting = Vec::new();
        if worn
            .iter()
            .all(|(_, (lora, _))| !lora.invocation.is_empty())
        {
            match worn[..] {
                [] => {}
                [(_, (lora, _))] => waiting.clone_from(&lora.invocation),
                _ => {
                    let message = "lora: several adapters that wait for tokens of the prompt (aLoRA) cannot act on one \
                                   request; give one of them a scale and the others 0";
                    return Err(ApiError::invalid("lora", message));
                }
            }
        }
        let pairs = worn
            .iter()
            .map(|&(adapter, (lora, scale))| (Scaled { adapter, scale }, lora.sha256.as_str()));
        Ok(Worn {
            adapters: Adapters::new(pairs),
            invocation: waiting,
        })
    }

    /// `[{"id": 0, "scale": 0.5}]`: the scale of each adapter.
    fn read(&self, name: &str, list: &[Value]) -> Result<Vec<f32>, ApiError> {
        let mut scales = vec![0.0; self.all.len()];
        for (at, item) in list.iter().enumerate() {
            let path = format!("{name}[{at}]");
            let Some(object) = item.as_object() else {
                let message = format!("{path}: expected an object with `id` and `scale`");
                return Err(ApiError::invalid(path, message));
            };
            let path = format!("{path}.");
            let fields = Fields::within(object, &path);
            let id: Option<usize> = fields.integer("id", 0..=i64::from(u32::MAX))?;
            let Some(scale) = id.and_then(|id| scales.get_mut(id)) else {
                return Err(fields.wrong("id", self.ids()));
            };
            *scale = fields
                .number("scale", -LARGEST_SCALE..=LARGEST_SCALE)?
                .ok_or_else(|| fields.wrong("scale", "a number"))?;
        }
        Ok(scales)
    }

    fn ids(&self) -> String {
        match self.all.len() {
            0 => "no adapter at all, for this server has loaded none".to_owned(),
            1 => "the number of an adapter, of which there is 0".to_owned(),
            many => format!("the number of an adapter from 0 to {}", many - 1),
        }
    }
}

impl Worn {
    /// The adapters for a prompt. One that waits for tokens which are not there does not act.
    pub(super) fn on(&self, prompt: &[Token]) -> Adapters {
        if self.invocation.is_empty() {
            return self.adapters.clone();
        }
        let found = prompt
            .windows(self.invocation.len())
            .rposition(|tokens| tokens == self.invocation);
        match found {
            // llama-server has it act from the token before on.
            Some(at) => self.adapters.clone().after(at.saturating_sub(1)),
            None => Adapters::default(),
        }
    }
}
