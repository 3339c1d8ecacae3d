//! The model that guesses for another one: loaded as planned, on the thread that decodes both.

use std::path::Path;

use super::{Buffer, Llama, LoadError, Weights};
use crate::{
    config::EngineConfig,
    engine::{
        draft::Companion,
        fit::{self, Plan},
    },
};

/// Loads the model in `file` by its own plan, [`Plan::draft`] of the other's; `config` is the other's.
///
/// Gives the memory that it takes as well. Call on the thread that will decode.
pub fn companion(
    file: &Path,
    config: &EngineConfig,
    plan: &Plan,
) -> Result<(Companion<Llama>, Vec<Buffer>), LoadError> {
    let config = fit::draft::settings(config, plan.context, None);
    let weights = Weights::load(file, plan, &mut |_| true)?;
    let llama = Llama::open(weights, &config, plan)?;
    let buffers = llama.buffers();
    Ok((Companion::new(llama), buffers))
}
