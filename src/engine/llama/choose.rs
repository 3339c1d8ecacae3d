//! Many sequences choose their tokens at once, on several threads.

use llama_cpp_sys_2 as sys;

use super::{Sampler, scores::scores};
use crate::engine::model::{Choice, Chosen, SampleError, Sampled, follow};

/// The logits of one choice's rows; none where a row asked for none.
pub(super) type Rows<'a> = Vec<Option<&'a [f32]>>;

/// Each choice with its rows, an even share of them on each thread; the answers in the order of the choices.
pub(super) fn together(
    logits: &[Rows<'_>],
    mut choices: Vec<Choice<'_, Sampler>>,
    threads: usize,
) -> Vec<Chosen> {
    let each = choices.len().div_ceil(threads);
    let mut parts = Vec::with_capacity(threads);
    let mut first = 0;
    while !choices.is_empty() {
        let part: Vec<_> = choices.drain(..each.min(choices.len())).collect();
        let count = part.len();
        parts.push((&logits[first..first + count], part));
        first += count;
    }
    let own = parts.pop();
    std::thread::scope(|scope| {
        let others: Vec<_> = parts
            .into_iter()
            .map(|(logits, part)| scope.spawn(move || in_turn(logits, part)))
            .collect();
        let own = own.map(|(logits, part)| in_turn(logits, part));
        let mut chosen = Vec::new();
        for other in others {
            match other.join() {
                Ok(part) => chosen.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        chosen.extend(own.unwrap_or_default());
        chosen
    })
}

fn in_turn(logits: &[Rows<'_>], choices: Vec<Choice<'_, Sampler>>) -> Vec<Chosen> {
    let mut candidates = Vec::new();
    let pairs = logits.iter().zip(choices);
    pairs
        .map(|(rows, mut choice)| {
            let start = choice.row;
            follow(&mut choice, |sampler, row, logprobs| {
                let row = rows.get(row - start).copied().flatten();
                sample(row, sampler, logprobs, &mut candidates)
            })
        })
        .collect()
}

/// One token, and its scores where they are wanted.
pub(super) fn sample(
    logits: Option<&[f32]>,
    sampler: &mut Sampler,
    logprobs: Option<u8>,
    candidates: &mut Vec<sys::llama_token_data>,
) -> Result<Sampled, SampleError> {
    let logits = logits.ok_or(SampleError::NotFinite)?;
    let token = sampler.choose(logits, candidates)?;
    Ok(Sampled {
        token,
        scores: logprobs.map(|top| scores(logits, token, top)),
    })
}
