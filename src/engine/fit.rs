//! Model header, devices and configuration to a placement, or why there is none.

mod plan;

pub use plan::{Cache, Device, Elsewhere, Facts, HOST, Layer, Place, Plan, Settings, Weights};
