//! What cannot fit however it is placed, told with no gauge or one.

use super::{Draft, Gauge, Problem, Shortage, Solution, layout, signed};
use crate::engine::{
    fit::HOST,
    llama::{Buffer, Gauged, LoadError},
};

impl Problem<'_> {
    /// Weights that all devices together could not hold need no gauge.
    pub(super) fn too_heavy(&self) -> Option<Shortage> {
        let weights = layout::weight_bytes(self.parts);
        let gpus: i64 = (0..self.gpus.len()).map(|at| self.room(at).max(0)).sum();
        let host = weights.saturating_sub(gpus.unsigned_abs());
        let missing = signed(host) - self.room(self.gpus.len());
        if host == 0 || missing <= 0 {
            return None;
        }
        let buffer = Buffer {
            device: "CPU".into(),
            name: "CPU".into(),
            host: true,
            weights: host,
            cache: 0,
            compute: 0,
        };
        let draft = self.wished();
        Some(Shortage {
            missing: vec![(HOST.to_owned(), missing.unsigned_abs())],
            nearest: Solution {
                context: draft.context,
                settings: self.settings(&draft),
                moved: draft.moved,
                gauged: Gauged {
                    buffers: vec![buffer],
                    heads: Vec::new(),
                    flash_attention: false,
                    astray: None,
                    kept_states: 0,
                },
            },
        })
    }

    /// A cache of very many cells takes seconds to gauge. What a part of it takes tells whether all devices together
    /// could ever hold the whole.
    pub(super) fn too_long(&self, gauge: &mut dyn Gauge) -> Result<Option<Shortage>, LoadError> {
        const MANY: u32 = 1 << 19;
        let context = self.config.context;
        let part = (MANY / self.config.parallel).max(256);
        if context <= part || self.config.placement.min_context.is_some() {
            return Ok(None);
        }
        let draft = Draft {
            context: part,
            ..self.wished()
        };
        let mut solution = self.attempt(gauge, draft)?;
        for buffer in &mut solution.gauged.buffers {
            let whole = u128::from(buffer.cache) * u128::from(context) / u128::from(part);
            buffer.cache = u64::try_from(whole).unwrap_or(u64::MAX);
        }
        let left: i128 = self.left(&solution).into_iter().map(i128::from).sum();
        Ok((left < 0).then(|| Shortage {
            missing: self.missing(&solution),
            nearest: solution,
        }))
    }
}
