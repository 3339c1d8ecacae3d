//! A draft model keeps in step with what sequences hold, and never keeps them waiting.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::engine::fake::{EOS, Fake};

const LONG: Duration = Duration::from_mins(1);
const NEVER: &dyn Fn() -> bool = &|| false;

fn tokens(text: &str) -> Vec<Token> {
    text.bytes().map(Token::from).collect()
}

fn wish(sequence: u32, tokens: &[Token]) -> Wish<'_> {
    Wish { sequence, tokens }
}

fn text(guesses: &Guesses) -> String {
    let bytes = guesses
        .tokens
        .iter()
        .map(|&token| u8::try_from(token).unwrap_or(b'$'));
    String::from_utf8(bytes.collect()).unwrap()
}

fn companion(context: u32) -> (Companion<Fake>, Arc<AtomicUsize>) {
    let work = Arc::new(AtomicUsize::new(0));
    let fake = Fake::new(3, context).counting(Arc::clone(&work));
    (Companion::new(fake), work)
}

#[test]
fn it_continues_each_sequence_and_computes_only_what_is_new() {
    let (mut companion, work) = companion(256);
    let (mut a, b) = (tokens("hello\n"), tokens("abc\n"));
    let guessed = companion
        .guess(&[wish(0, &a), wish(2, &b)], 2, LONG, NEVER)
        .unwrap();
    assert_eq!(guessed.iter().map(text).collect::<Vec<_>>(), ["he", "ab"]);
    assert_eq!(work.swap(0, Ordering::Relaxed), 6 + 4 + 2);
    // Both guesses came true, and a token more; the first one was computed while guessing.
    a.extend(tokens("hel"));
    let guessed = companion.guess(&[wish(0, &a)], 4, LONG, NEVER).unwrap();
    assert_eq!(guessed[0].tokens, [tokens("lo"), vec![EOS]].concat());
    assert_eq!(work.load(Ordering::Relaxed), 2 + 2);
}

#[test]
fn what_did_not_come_true_or_was_taken_back_is_forgotten() {
    let (mut companion, _) = companion(256);
    let guess = |companion: &mut Companion<Fake>, known: &str| {
        let known = tokens(known);
        text(&companion.guess(&[wish(1, &known)], 8, LONG, NEVER).unwrap()[0])
    };
    assert_eq!(guess(&mut companion, "hello\n"), "hello$");
    assert_eq!(guess(&mut companion, "hello\nhex"), "lo$");
    assert_eq!(guess(&mut companion, "hello\n"), "hello$");
    assert_eq!(guess(&mut companion, "abc\n"), "abc$");
    assert_eq!(guess(&mut companion, "ab"), "\nab$");
}

#[test]
fn a_long_sequence_is_read_in_parts_and_a_short_one_does_not_wait_for_it() {
    let (mut companion, _) = companion(256);
    let (long, short) = (tokens(&format!("{}\n", "x".repeat(20))), tokens("ab\n"));
    let guess = |companion: &mut Companion<Fake>| {
        let wishes = [wish(0, &long), wish(1, &short)];
        let guessed = companion.guess(&wishes, 1, LONG, NEVER).unwrap();
        guessed.into_iter().map(|one| one.ready).collect::<Vec<_>>()
    };
    // A ubatch is 16 tokens.
    assert_eq!(guess(&mut companion), [false, true]);
    assert_eq!(guess(&mut companion), [true, true]);
}

#[test]
fn a_sequence_beyond_its_context_gets_nothing_and_harms_nobody() {
    let (mut companion, _) = companion(12);
    let (long, short) = (tokens("abcdefghijklmnop\n"), tokens("abcdefghi\n"));
    assert_eq!(companion.seconds_behind(&wish(0, &long)), None);
    let guessed = companion
        .guess(&[wish(0, &long), wish(1, &short)], 8, LONG, NEVER)
        .unwrap();
    assert_eq!(guessed[0], Guesses::default());
    assert_eq!(text(&guessed[1]), "ab"); // and no further than its cache goes
}

#[test]
fn after_a_step_cut_short_it_begins_anew() {
    let (mut companion, _) = companion(256);
    let known = tokens("hello\n");
    companion.guess(&[wish(0, &known)], 3, LONG, NEVER).unwrap();
    let abandoned = companion.guess(&[wish(0, &tokens("abc\n"))], 3, LONG, &|| true);
    assert_eq!(abandoned, Err(DecodeError::Abandoned));
    let guessed = companion.guess(&[wish(0, &known)], 8, LONG, NEVER).unwrap();
    assert_eq!(text(&guessed[0]), "hello$");
}
