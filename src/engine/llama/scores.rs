//! What logits say by themselves: the most likely token, and log-probabilities.

use llama_cpp_sys_2 as sys;

use crate::engine::Token;

/// The most likely token; the first of equals. NaN is never chosen unless there is nothing else.
///
/// It stands between two steps of the device, over a quarter of a million logits: blocks are compared lane by lane,
/// which vectorises, and only the best block is looked through for the place.
pub(super) fn argmax(logits: &[f32]) -> Token {
    const BLOCK: usize = 1024;
    let mut best = (f32::NEG_INFINITY, 0);
    for (at, block) in logits.chunks(BLOCK).enumerate() {
        let highest = highest(block);
        if highest > best.0 {
            best = (highest, at * BLOCK);
        }
    }
    let (highest, start) = best;
    let place = logits[start..].iter().position(|logit| *logit >= highest);
    // Without any that is at least minus infinity, all are NaN.
    let at = place.map_or(0, |place| start + place);
    Token::try_from(at).unwrap_or(0)
}

/// The most likely token and about how likely it is: what is ten thousand times less likely counts for nothing.
pub(super) fn likeliest(logits: &[f32]) -> Option<(Token, f32)> {
    const BLOCK: usize = 512;
    const FAR: f32 = 9.2;
    let token = argmax(logits);
    let best = *logits.get(usize::try_from(token).ok()?)?;
    if !best.is_finite() {
        return None;
    }
    let near = logits
        .chunks(BLOCK)
        .filter(|block| highest(block) > best - FAR);
    let sum: f32 = near
        .flatten()
        .filter(|logit| **logit > best - FAR)
        .map(|logit| (logit - best).exp())
        .sum();
    Some((token, 1.0 / sum))
}

/// The `count` most likely tokens, best first, of equals the first; NaN left out.
pub(super) fn best(logits: &[f32], count: usize, out: &mut Vec<sys::llama_token_data>) {
    const BLOCK: usize = 512;
    out.clear();
    if count == 0 {
        return;
    }
    let mut least = f32::NEG_INFINITY;
    for (at, block) in logits.chunks(BLOCK).enumerate() {
        if out.len() == count && highest(block) <= least {
            continue;
        }
        for (id, &logit) in (at * BLOCK..).zip(block) {
            let full = out.len() == count;
            if logit.is_nan() || (full && logit <= least) {
                continue;
            }
            if full {
                out.pop();
            }
            let place = out.partition_point(|other| other.logit >= logit);
            let id = Token::try_from(id).unwrap_or(Token::MAX);
            out.insert(place, sys::llama_token_data { id, logit, p: 0.0 });
            least = out[out.len() - 1].logit;
        }
    }
}

/// The highest logit, NaN left out.
fn highest(logits: &[f32]) -> f32 {
    const LANES: usize = 32;
    let above = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = logits.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = above(*lane, *logit);
        }
    }
    lanes
        .into_iter()
        .chain(rest.iter().copied())
        .fold(f32::NEG_INFINITY, above)
}

/// Log-probabilities of `token` and of the `top` most likely tokens, best first, before any sampler.
pub(super) fn scores(logits: &[f32], token: Token, top: u8) -> (f32, Vec<(Token, f32)>) {
    let best = highest(logits);
    let sum: f64 = logits
        .iter()
        .map(|&logit| f64::from((logit - best).exp()))
        .sum();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a logarithm of a vocabulary's size fits"
    )]
    let norm = best + sum.ln() as f32;
    let mut ranking: Vec<(Token, f32)> = Vec::with_capacity(usize::from(top) + 1);
    for (id, &logit) in (0..).zip(logits) {
        let full = ranking.len() == usize::from(top);
        if full && ranking.last().is_none_or(|last| logit <= last.1) {
            continue;
        }
        let at = ranking.partition_point(|other| other.1 >= logit);
        ranking.insert(at, (id, logit));
        ranking.truncate(usize::from(top));
    }
    for entry in &mut ranking {
        entry.1 -= norm;
    }
    let own = usize::try_from(token)
        .ok()
        .and_then(|at| logits.get(at))
        .map_or(f32::NEG_INFINITY, |l| l - norm);
    (own, ranking)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_most_likely_is_chosen_and_nan_is_not() {
        assert_eq!(argmax(&[0.0, f32::NAN, 3.0, 3.0]), 2);
        assert_eq!(argmax(&[]), 0);
    }

    #[test]
    fn the_likeliest_is_about_as_likely_as_its_score_says() {
        let logits: Vec<f32> = (0..3000_u16).map(|at| f32::from(at % 97) * 0.2).collect();
        let (token, likely) = likeliest(&logits).unwrap();
        let (score, _) = scores(&logits, token, 0);
        assert_eq!(token, argmax(&logits));
        assert!((likely - score.exp()).abs() < 0.02 * likely, "{likely}");
        assert_eq!(likeliest(&[f32::NAN, f32::NAN]), None);
        assert_eq!(likeliest(&[]), None);
    }

    #[test]
    fn the_best_are_those_that_sorting_all_would_give() {
        let logits: Vec<f32> = (0..5000_u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) % 997) as f32)
            .chain([f32::NAN, f32::NEG_INFINITY])
            .collect();
        let mut sorted: Vec<usize> = (0..5000).collect();
        sorted.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let mut out = Vec::new();
        best(&logits, 40, &mut out);
        let found: Vec<_> = out
            .iter()
            .map(|one| usize::try_from(one.id).unwrap())
            .collect();
        assert_eq!(found, sorted[..40]);
        best(&logits[..3], 40, &mut out);
        assert_eq!(out.len(), 3);
    }

    #[test]
    fn scores_are_log_probabilities_in_falling_order() {
        let (own, top) = scores(&[0.0, 2.0, 1.0], 0, 2);
        let sum = 1.0_f32 + 2.0_f32.exp() + 1.0_f32.exp();
        assert!((own - -sum.ln()).abs() < 1e-6);
        assert_eq!(top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 2]);
        assert!((top[0].1 - (2.0 - sum.ln())).abs() < 1e-6);
    }
}
