//! Tokens to text that will not change any more: whole UTF-8, nothing that may yet become a stop string.

use std::collections::VecDeque;

use super::Scored;

/// The text of one answer as it grows.
#[derive(Debug)]
pub(crate) struct Text {
    /// Tokens before stop strings are looked for.
    before_stops: u32,
    stops: Vec<Vec<u8>>,
    /// Bytes not released yet: an unfinished character, or a possible beginning of a stop string.
    held: Vec<u8>,
    /// Scored tokens not released yet, each with the bytes still missing until it may go.
    scored: VecDeque<(usize, Scored)>,
}

/// What one token released.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Released {
    pub(crate) text: String,
    pub(crate) scored: Vec<Scored>,
    /// The stop string that ends the answer here.
    pub(crate) stop: Option<String>,
}

impl Text {
    pub(crate) fn new(stops: &[String]) -> Self {
        Self {
            before_stops: 0,
            stops: stops
                .iter()
                .filter(|stop| !stop.is_empty())
                .map(|stop| stop.clone().into_bytes())
                .collect(),
            held: Vec::new(),
            scored: VecDeque::new(),
        }
    }

    /// Looks for stop strings only after so many tokens.
    pub(crate) fn after(self, tokens: u32) -> Self {
        Self {
            before_stops: tokens,
            ..self
        }
    }

    /// Appends the bytes of one token.
    pub(crate) fn push(&mut self, bytes: &[u8], scored: Option<Scored>) -> Released {
        self.held.extend_from_slice(bytes);
        if let Some(scored) = scored {
            self.scored.push_back((self.held.len(), scored));
        }
        if self.before_stops > 0 {
            self.before_stops -= 1;
            let whole = self.held.len() - unfinished_character(&self.held);
            return self.release(whole);
        }
        if let Some((at, stop)) = self.earliest_stop() {
            let released = self.release(at);
            self.held.clear();
            self.scored.clear();
            return Released {
                stop: Some(stop),
                ..released
            };
        }
        let safe = self.held.len() - self.possible_stop();
        let whole = safe - unfinished_character(&self.held[..safe]);
        self.release(whole)
    }

    /// The answer is over: everything that was held, unfinished characters replaced.
    pub(crate) fn finish(&mut self) -> Released {
        self.release(self.held.len())
    }

    fn earliest_stop(&self) -> Option<(usize, String)> {
        self.stops
            .iter()
            .filter_map(|stop| Some((find(&self.held, stop)?, stop)))
            .min_by_key(|&(at, stop)| (at, std::cmp::Reverse(stop.len())))
            .map(|(at, stop)| (at, String::from_utf8_lossy(stop).into_owned()))
    }

    /// Length of the longest end of `held` that begins a stop string.
    fn possible_stop(&self) -> usize {
        self.stops
            .iter()
            .filter_map(|stop| {
                let longest = self.held.len().min(stop.len() - 1);
                (1..=longest)
                    .rev()
                    .find(|&n| self.held.ends_with(&stop[..n]))
            })
            .max()
            .unwrap_or(0)
    }

    fn release(&mut self, length: usize) -> Released {
        let text = String::from_utf8_lossy(&self.held[..length]).into_owned();
        self.held.drain(..length);
        let mut scored = Vec::new();
        while self.scored.front().is_some_and(|(end, _)| *end <= length) {
            scored.extend(self.scored.pop_front().map(|(_, token)| token));
        }
        for (end, _) in &mut self.scored {
            *end -= length;
        }
        Released {
            text,
            scored,
            stop: None,
        }
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// How many bytes at the end of `bytes` begin a character that is not complete yet.
fn unfinished_character(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    // The last byte that can begin a character decides; 0b10xx_xxxx only continues one.
    let Some(back) = tail.iter().rev().position(|byte| byte & 0xC0 != 0x80) else {
        return 0;
    };
    let have = back + 1;
    let need = match tail[tail.len() - have] {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    };
    if have < need { have } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stop_strings_are_not_looked_for_at_first() {
        let mut text = Text::new(&["ab".to_owned()]).after(3);
        let said = feed(
            &mut text,
            &[b"ab", b"\xC3", b"\xA4a", b"bc", b"a", b"b", b"c"],
        );
        assert_eq!(said, ("ab\u{e4}abc".to_owned(), Some("ab".to_owned())));
    }

    fn feed(text: &mut Text, parts: &[&[u8]]) -> (String, Option<String>) {
        let mut all = String::new();
        for part in parts {
            let released = text.push(part, None);
            all.push_str(&released.text);
            if released.stop.is_some() {
                return (all, released.stop);
            }
        }
        all.push_str(&text.finish().text);
        (all, None)
    }

    #[test]
    fn a_stop_string_is_found_across_token_borders_and_not_shown() {
        let mut text = Text::new(&["</s>".into(), "END".into()]);
        let (shown, stop) = feed(&mut text, &[b"ab<", b"/", b"s>cd"]);
        assert_eq!((shown.as_str(), stop.as_deref()), ("ab", Some("</s>")));
    }

    #[test]
    fn the_earliest_of_several_stop_strings_wins() {
        let mut text = Text::new(&["cd".into(), "bc".into()]);
        assert_eq!(feed(&mut text, &[b"abcd"]), ("a".into(), Some("bc".into())));
    }

    #[test]
    fn what_only_looked_like_a_stop_string_is_shown() {
        let mut text = Text::new(&["</s>".into()]);
        assert_eq!(text.push(b"a</", None).text, "a");
        assert_eq!(text.push(b"b", None).text, "</b");
    }

    #[test]
    fn an_unfinished_character_waits_and_at_the_end_is_replaced() {
        let mut text = Text::new(&[]);
        assert_eq!(text.push("é".as_bytes().split_at(1).0, None).text, "");
        assert_eq!(text.finish().text, "\u{FFFD}");
    }

    #[test]
    fn scored_tokens_go_with_the_last_of_their_bytes() {
        let scored = |token: i32, bytes: &[u8]| Scored {
            token,
            bytes: bytes.to_vec(),
            logprob: 0.0,
            top: Vec::new(),
        };
        let mut text = Text::new(&["xy".into()]);
        assert!(text.push(b"ax", Some(scored(1, b"ax"))).scored.is_empty());
        let released = text.push(b"b", Some(scored(2, b"b")));
        assert_eq!(released.text, "xb");
        assert_eq!(
            released.scored.iter().map(|s| s.token).collect::<Vec<_>>(),
            [1, 2]
        );
    }

    proptest! {
        #[test]
        fn any_splitting_gives_the_same_text(whole in "\\PC{0,40}", cuts in prop::collection::vec(0usize..160, 0..12)) {
            let bytes = whole.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts: Vec<_> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            let mut text = Text::new(&["zq".into()]);
            let expected = whole.split("zq").next().unwrap_or_default();
            prop_assert_eq!(feed(&mut text, &parts).0, expected);
        }

        #[test]
        fn any_bytes_are_shown_as_the_whole_would_be(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..12)) {
            let mut text = Text::new(&[]);
            let refs: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let whole = parts.concat();
            prop_assert_eq!(feed(&mut text, &refs).0, String::from_utf8_lossy(&whole));
        }
    }
}
