//! A model's state with that of its prediction layers behind it, and the two apart again (pure).

/// Ends a state to which something of the prediction layers was added.
const ADDED: [u8; 8] = *b"+heads.1";

/// A model's state with that of its prediction layers behind it.
pub(in crate::engine::llama) fn join(mut state: Vec<u8>, heads: &[u8]) -> Vec<u8> {
    let length = heads.len() as u64;
    state.reserve(heads.len() + size_of_val(&length) + ADDED.len());
    state.extend(heads);
    state.extend(length.to_le_bytes());
    state.extend(ADDED);
    state
}

/// The two parts of what [`join`] made; all of it and nothing where nothing was added.
pub(in crate::engine::llama) fn divide(joined: &[u8]) -> (&[u8], &[u8]) {
    let parts = || {
        let rest = joined.strip_suffix(&ADDED)?;
        let (rest, length) = rest.split_last_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        rest.split_at_checked(rest.len().checked_sub(length)?)
    };
    parts().unwrap_or((joined, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_divided_as_they_were_joined_and_others_are_left_whole() {
        for (state, heads) in [(&b"state"[..], &b"heads"[..]), (b"state", b""), (b"", b"h")] {
            assert_eq!(divide(&join(state.to_vec(), heads)), (state, heads));
        }
        assert_eq!(divide(b"plain"), (&b"plain"[..], &b""[..]));
        let absurd = [&u64::MAX.to_le_bytes()[..], &ADDED].concat();
        assert_eq!(divide(&absurd), (&absurd[..], &b""[..]));
    }
}
