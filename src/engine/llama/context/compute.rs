//! A batch before and while it is computed: held to what llama.cpp takes, and what its outcome means.

use llama_cpp_sys_2 as sys;

use super::Llama;
use crate::engine::{
    llama::guard::{self, Fault},
    media::{Attention, ImageRows},
    model::{DecodeError, Model, Row},
};

impl Llama {
    /// # Safety
    /// The batch holds no more rows and outputs than the context was made for.
    pub(super) unsafe fn compute(
        &mut self,
        batch: sys::llama_batch,
        abandoned: &dyn Fn() -> bool,
    ) -> Result<(), DecodeError> {
        let context = self.context;
        // SAFETY: the context is valid and ours; the caller vouches for the batch.
        let decode = || unsafe { guard::decode(context, batch) };
        let outcome = self.question.during(abandoned, decode);
        if !matches!(outcome, Err(Fault::Code(-1))) {
            self.copies.made(); // what is refused is so before anything is done
        }
        outcome.map_err(|fault| fault.of_batch("llama_decode"))
    }

    /// What llama.cpp would assert on. Bad tokens, positions and gaps it refuses itself.
    pub(super) fn check(&self, rows: &[Row]) -> Result<(), DecodeError> {
        let refuse = |why: &str| Err(DecodeError::Refused(why.into()));
        if rows.is_empty() || rows.len() > self.batch.room {
            return refuse("the batch has no rows, or too many");
        }
        if rows.iter().filter(|row| row.logits).count() > self.outputs() {
            return refuse("more rows ask for logits than there is room for");
        }
        if rows
            .iter()
            .any(|row| row.sequence >= self.config.parallel || row.position >= self.config.context)
        {
            return refuse("a row lies outside the context");
        }
        Ok(())
    }

    /// The same for an image.
    pub(super) fn check_image(&self, rows: ImageRows<'_>) -> Result<(), DecodeError> {
        let refuse = |why: &str| Err(DecodeError::Refused(why.into()));
        let ubatch = self.ubatch().min(self.batch.room);
        if rows.count == 0 || rows.count > ubatch {
            return refuse("an image's batch has no rows, or too many");
        }
        if rows.image.attention() == Attention::Whole && rows.count != rows.image.rows() {
            return refuse("an image that must be computed at once was divided");
        }
        let end = u64::from(rows.position) + rows.image.rows() as u64;
        if rows.sequence >= self.config.parallel || end > u64::from(self.config.context) {
            return refuse("an image lies outside the context");
        }
        Ok(())
    }
}
