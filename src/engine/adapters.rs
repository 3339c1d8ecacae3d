//! Which LoRA adapters a job is computed with, and from which token of its prompt on (pure).

use std::sync::Arc;

use sha2::{Digest, Sha256};

/// An adapter of the model by its place in `model.adapters`, at a scale that is not 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaled {
    pub adapter: usize,
    pub scale: f32,
}

/// Adapters at their scales, as a number that is the same after a restart. What one set has computed is of no use to
/// another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    /// No adapter at all.
    pub const PLAIN: Self = Self(0);
}

/// The adapters of a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Adapters {
    scaled: Arc<[Scaled]>,
    set: Set,
    /// Tokens of the prompt that are computed without.
    from: usize,
}

impl Adapters {
    /// Each with the SHA-256 of its file. What has scale 0 is left out.
    pub fn new<'a>(adapters: impl IntoIterator<Item = (Scaled, &'a str)>) -> Self {
        let mut digest = Sha256::new();
        let mut scaled = Vec::new();
        for (one, sha256) in adapters {
            if one.scale != 0.0 {
                digest.update(sha256);
                digest.update(one.scale.to_le_bytes());
                scaled.push(one);
            }
        }
        let set = match scaled[..] {
            [] => Set::PLAIN,
            _ => Set(number(digest).max(1)),
        };
        Self {
            scaled: scaled.into(),
            set,
            from: 0,
        }
    }

    /// The same for a prompt whose first `tokens` tokens are computed without.
    #[must_use]
    pub fn after(mut self, tokens: usize) -> Self {
        if self.set != Set::PLAIN {
            self.from = tokens;
        }
        self
    }

    /// The same for a sequence that has forgotten what came after its first `kept` tokens: all else is the adapters'.
    pub(crate) fn shifted(&mut self, kept: usize) {
        self.from = self.from.min(kept);
    }

    pub fn scaled(&self) -> &[Scaled] {
        &self.scaled
    }

    /// The set with which the token at this place is computed.
    pub(crate) fn set_at(&self, place: usize) -> Set {
        if place < self.from {
            Set::PLAIN
        } else {
            self.set
        }
    }

    pub(crate) fn scaled_at(&self, place: usize) -> &[Scaled] {
        if place < self.from { &[] } else { &self.scaled }
    }

    /// Where a step must end that begins at `place`, because another set follows.
    pub(crate) fn border(&self, place: usize) -> Option<usize> {
        (place < self.from).then_some(self.from)
    }

    /// Who may reuse what a tenant's job has computed: only that tenant's jobs with the same adapters from the same
    /// token on.
    pub(crate) fn owner(&self, tenant: u64) -> u64 {
        match (self.set, self.from) {
            (Set::PLAIN, _) => tenant,
            (Set(set), 0) => tenant ^ set,
            (Set(set), from) => {
                let mut digest = Sha256::new();
                digest.update(set.to_le_bytes());
                digest.update((from as u64).to_le_bytes());
                tenant ^ number(digest)
            }
        }
    }
}

fn number(digest: Sha256) -> u64 {
    let bytes = digest.finalize();
    bytes
        .iter()
        .take(8)
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapters(scales: &[f32]) -> Adapters {
        let numbered = scales.iter().enumerate();
        Adapters::new(numbered.map(|(adapter, &scale)| (Scaled { adapter, scale }, "digest")))
    }

    #[test]
    fn other_scales_are_another_set_with_another_owner_and_scale_0_is_none() {
        let sets = [
            adapters(&[1.0]),
            adapters(&[0.5]),
            adapters(&[1.0, 0.5]),
            adapters(&[]),
        ];
        for (at, one) in sets.iter().enumerate() {
            for other in &sets[..at] {
                assert_ne!(one.set_at(0), other.set_at(0));
                assert_ne!(one.owner(7), other.owner(7));
            }
        }
        assert_eq!(adapters(&[0.0]), Adapters::default());
        assert_eq!(Adapters::default().owner(7), 7);
    }

    #[test]
    fn what_comes_before_the_invocation_is_plain_and_no_step_crosses_it() {
        let late = adapters(&[1.0]).after(5);
        assert_eq!(late.set_at(4), Set::PLAIN);
        assert_eq!((late.scaled_at(4).len(), late.scaled_at(5).len()), (0, 1));
        assert_eq!((late.border(4), late.border(5)), (Some(5), None));
        assert_ne!(late.owner(7), adapters(&[1.0]).owner(7));
        assert_ne!(late.owner(7), adapters(&[1.0]).after(6).owner(7));
        assert_eq!(Adapters::default().after(5).border(0), None);
    }
}
