//! Model header, devices and configuration to a placement, or why there is none.

mod plan;

pub use plan::{Cache, Device, Elsewhere, Facts, HOST, Layer, Place, Plan, Settings, Weights};

use std::path::{Path, PathBuf};

use crate::config::Config;

/// The border that `llm-server plan` is built against.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    #[error("the placement of {} cannot be computed yet", .0.display())]
    NotYet(PathBuf),
}

pub fn plan_for(file: &Path, _: &Config) -> Result<Plan, FitError> {
    Err(FitError::NotYet(file.into()))
}
