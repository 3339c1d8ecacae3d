//! What can be known of a LoRA adapter's file beside the model that it is for, so that what does not fit is refused by
//! name before anything is loaded.

use std::path::Path;

use super::{GgufError, Tensor, open, raw};
use crate::engine::Token;

/// What the header of an adapter says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adapter {
    /// What it is for, and the text that belongs before a prompt: as its makers wrote it down, often empty.
    pub task: String,
    pub prompt_prefix: String,
    /// Tokens of a prompt from whose last occurrence on it acts (aLoRA); empty: it always does.
    pub invocation: Vec<Token>,
    /// The model's tensors that it changes, each with the bytes of both its matrices.
    pub changes: Vec<Tensor>,
}

/// Why a file is no adapter of a model.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    #[error(transparent)]
    File(#[from] GgufError),
    #[error("{0}")]
    Unfit(String),
}

const EMBEDDINGS: &str = "token_embd.weight";
const A: &str = ".lora_a";
const B: &str = ".lora_b";
const INVOCATION: &str = "adapter.alora.invocation_tokens";

impl Adapter {
    /// Reads what does not depend on the model.
    pub fn read(path: &Path) -> Result<Self, AdapterError> {
        let file = open(path)?;
        let says = |key: &str, expected: &str| match file.text(key) {
            Some(found) if found == expected => Ok(()),
            found => {
                let found = found.map_or("missing".to_owned(), |found| format!("{found:?}"));
                Err(AdapterError::Unfit(format!(
                    "this is no LoRA adapter: {key} is {found}, not {expected:?}"
                )))
            }
        };
        says("general.type", "adapter")?;
        says("adapter.type", "lora")?;
        if !file.is_number_f32("adapter.lora.alpha") {
            return Err(AdapterError::Unfit(
                "adapter.lora.alpha is not a number of type f32".into(),
            ));
        }
        let invocation = match file.numbers(INVOCATION) {
            None if file.has(INVOCATION) => {
                return Err(AdapterError::Unfit(format!(
                    "{INVOCATION} is not a list of numbers of type u32"
                )));
            }
            found => found.unwrap_or_default(),
        };
        let mut changes: Vec<Tensor> = Vec::new();
        for (name, bytes) in file.tensors() {
            let Some(name) = name.strip_suffix(A).or_else(|| name.strip_suffix(B)) else {
                if name.ends_with("_norm.weight") {
                    continue; // llama.cpp passes these over
                }
                return Err(AdapterError::Unfit(format!(
                    "its tensor {name} is no part of a LoRA adapter: expected names that end in {A} or {B}"
                )));
            };
            match changes.iter_mut().find(|change| change.name == name) {
                Some(change) => change.bytes += bytes,
                None => changes.push(Tensor {
                    name: name.to_owned(),
                    bytes,
                }),
            }
        }
        if changes.is_empty() {
            return Err(AdapterError::Unfit(
                "it changes nothing: it has no tensors".into(),
            ));
        }
        let invocation = invocation.into_iter().map(Token::try_from);
        let invocation = invocation
            .collect::<Result<_, _>>()
            .map_err(|_| AdapterError::Unfit(format!("{INVOCATION} has no tokens in it")))?;
        Ok(Self {
            task: file.text("adapter.lora.task_name").unwrap_or_default(),
            prompt_prefix: file.text("adapter.lora.prompt_prefix").unwrap_or_default(),
            invocation,
            changes,
        })
    }

    /// Reads it and checks each of its matrices against the model's.
    pub fn check(path: &Path, model: &Path) -> Result<Self, AdapterError> {
        let adapter = Self::read(path)?;
        let (own, model) = (open(path)?, open(model)?);
        let architecture = |file: &raw::File| file.text("general.architecture").unwrap_or_default();
        let (found, needed) = (architecture(&own), architecture(&model));
        if found != needed {
            return Err(AdapterError::Unfit(format!(
                "it is for models of architecture {found:?}, and this one is of {needed:?}"
            )));
        }
        for change in &adapter.changes {
            fits(&change.name, &own, &model).map_err(AdapterError::Unfit)?;
        }
        Ok(adapter)
    }
}

/// What llama.cpp checks, and what it would only notice while it computes.
fn fits(name: &str, own: &raw::File, model: &raw::File) -> Result<(), String> {
    let matrix = |suffix: &str| {
        let name = format!("{name}{suffix}");
        let shape = own
            .shape(&name)
            .ok_or_else(|| format!("{name} is missing"))?;
        if own.computes(&name) {
            Ok(shape)
        } else {
            Err(format!(
                "{name} is in a format that adapters are not computed in; accepted: F32, F16, BF16, Q8_0, Q5_1, Q5_0, \
                 Q4_1, Q4_0"
            ))
        }
    };
    let (a, b) = (matrix(A)?, matrix(B)?);
    let Some(of) = model.shape(name) else {
        return Err(format!(
            "the model has no tensor {name}, which the adapter changes"
        ));
    };
    // llama.cpp would put the matrices for the embeddings on the output, too, and abort.
    if name == EMBEDDINGS && model.shape("output.weight").is_none() {
        return Err(format!(
            "it changes {EMBEDDINGS}, which this model uses for its output as well; the engine cannot compute that"
        ));
    }
    // Of embeddings the first matrix is looked up by token, so it lies the other way.
    let (rank, inner, outer) = if name == EMBEDDINGS {
        (a[0], a[1] == of[1], b[1] == of[0])
    } else {
        (a[1], a[0] == of[0], b[1] == of[1])
    };
    let experts = a[2..] == of[2..] && b[2..] == of[2..];
    if rank == b[0] && rank > 0 && inner && outer && experts {
        return Ok(());
    }
    Err(format!(
        "{name} of the model has the shape {}, and the adapter's matrices for it {} and {} do not fit: it was made for \
         another model",
        spelt(of),
        spelt(a),
        spelt(b)
    ))
}

fn spelt(shape: [u64; 4]) -> String {
    let dimensions = 4 - shape
        .iter()
        .rev()
        .take_while(|length| **length == 1)
        .count();
    let lengths = shape[..dimensions.max(1)].iter().map(u64::to_string);
    lengths.collect::<Vec<_>>().join(" × ")
}
