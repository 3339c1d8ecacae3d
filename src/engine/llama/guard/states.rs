//! Binding to `mtp.cpp`: hidden states, and the prediction layers that go on from them.

use std::ffi::{c_char, c_int};

use llama_cpp_sys_2 as sys;

use super::{Fault, outcome};

unsafe extern "C" {
    fn mtp_show_states(
        context: *mut sys::llama_context,
        only_outputs: bool,
        out: *mut *mut c_char,
    ) -> c_int;
    fn mtp_state(context: *mut sys::llama_context, row: i32) -> *const f32;
    fn mtp_decode(
        context: *mut sys::llama_context,
        batch: *mut sys::llama_batch_ext,
        rows: *const StateRow,
        count: i32,
        states: *const f32,
        width: usize,
        out: *mut *mut c_char,
    ) -> c_int;
}

/// `mtp_row` of mtp.h.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::llama) struct StateRow {
    pub(in crate::engine::llama) token: sys::llama_token,
    pub(in crate::engine::llama) position: sys::llama_pos,
    pub(in crate::engine::llama) sequence: sys::llama_seq_id,
    pub(in crate::engine::llama) logits: bool,
}

/// Of which rows a context hands out hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::llama) enum Shown {
    Every,
    /// Those that ask for logits.
    Outputs,
}

/// Has the context hand out hidden states from its next batch on.
///
/// # Safety
/// `context` is valid and not in use elsewhere.
pub(in crate::engine::llama) unsafe fn show_states(
    context: *mut sys::llama_context,
    shown: Shown,
) -> Result<(), Fault> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the caller vouches for `context`.
    let code = unsafe { mtp_show_states(context, shown == Shown::Outputs, &raw mut out) };
    outcome(code, out)
}

/// The hidden state of a row of the latest batch.
///
/// # Safety
/// `context` is valid and shows states `width` numbers long; nothing computes in it while the state is looked at.
pub(in crate::engine::llama) unsafe fn state<'a>(
    context: *mut sys::llama_context,
    row: usize,
    width: usize,
) -> Option<&'a [f32]> {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        let state = mtp_state(context, i32::try_from(row).ok()?);
        (!state.is_null()).then(|| std::slice::from_raw_parts(state, width))
    }
}

/// Computes rows, each with the hidden state of the token before it.
///
/// # Safety
/// `context` is valid and not in use elsewhere, `batch` its own; the rows are no more than it takes, and the states as
/// wide as it wants them.
pub(in crate::engine::llama) unsafe fn decode_states(
    context: *mut sys::llama_context,
    batch: *mut sys::llama_batch_ext,
    rows: &[StateRow],
    states: &[f32],
    width: usize,
) -> Result<(), Fault> {
    let enough = rows.len().checked_mul(width) == Some(states.len());
    let (true, Ok(count)) = (enough, i32::try_from(rows.len())) else {
        return Err(Fault::Code(-1));
    };
    let mut out = std::ptr::null_mut();
    // SAFETY: there is a state for each row; the caller vouches for the rest.
    let code = unsafe {
        mtp_decode(
            context,
            batch,
            rows.as_ptr(),
            count,
            states.as_ptr(),
            width,
            &raw mut out,
        )
    };
    outcome(code, out)
}
