//! A model for tests: no weights, a byte-level vocabulary, and answers that follow from the prompt.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    Grammar, Sampling, Scaled, Token,
    draft::Drafter,
    media::ImageRows,
    model::{DecodeError, Model, Part, Row, SampleError, Sampled, Scores, Vocab},
};

/// 256 byte tokens, then `<eos>` (256) and `<tool>` (257, a control token).
pub struct FakeVocab;

pub const EOS: Token = 256;
pub const TOOL: Token = 257;

impl Vocab for FakeVocab {
    fn size(&self) -> u32 {
        258
    }

    fn tokenize(&self, text: &str, _add_special: bool, _parse_special: bool) -> Vec<Token> {
        text.bytes().map(Token::from).collect()
    }

    fn piece(&self, token: Token, special: bool, out: &mut Vec<u8>) {
        match u8::try_from(token) {
            Ok(byte) => out.push(byte),
            Err(_) if special && token == EOS => out.extend_from_slice(b"<eos>"),
            Err(_) if special => out.extend_from_slice(b"<tool>"),
            Err(_) => {}
        }
    }

    fn is_eog(&self, token: Token) -> bool {
        token == EOS
    }

    fn is_control(&self, token: Token) -> bool {
        token >= EOS
    }
}

/// What goes wrong in a [`Fake`], asked before each decode.
pub type Fault = Box<dyn FnMut(&[Row]) -> Option<DecodeError> + Send>;

/// Answers a prompt that ends with a newline by repeating its last line, then `<eos>`. It knows only what
/// was decoded into its sequences, so a scheduler that loses or mixes up a token gets a wrong answer.
///
/// It remembers with which adapters each token was computed: each moves every letter of what it answers on from there
/// by its number (from 1) times its scale, see [`moved`].
pub struct Fake {
    context: u32,
    batch: usize,
    sequences: Vec<Vec<Token>>,
    /// What follows each row that asked for logits.
    next: BTreeMap<usize, Token>,
    fault: Fault,
    recurrent: bool,
    /// Every so many times a state is not saved or not taken; 0: never.
    forgetful: usize,
    states: usize,
    /// What the adapters add to a token, in whole [`MARK`]s.
    worn: Token,
    /// Rows computed so far.
    work: Arc<AtomicUsize>,
    /// Rows that a recurrent sequence can take back after a step that computed more of them.
    takes_back: usize,
    /// Rows of each sequence in the last step.
    latest: Vec<usize>,
    drafter: Option<Box<dyn Drafter + Send>>,
}

impl Fake {
    pub fn new(sequences: u32, context: u32) -> Self {
        Self {
            context,
            batch: 64,
            sequences: vec![Vec::new(); sequences as usize],
            next: BTreeMap::new(),
            fault: Box::new(|_| None),
            recurrent: false,
            forgetful: 0,
            states: 0,
            worn: 0,
            work: Arc::default(),
            takes_back: 0,
            latest: vec![0; sequences as usize],
            drafter: None,
        }
    }

    /// Lets a recurrent one take back so many rows of the last step.
    #[must_use]
    pub fn taking_back(mut self, rows: usize) -> Self {
        self.takes_back = rows;
        self
    }

    #[must_use]
    pub fn with_drafter(mut self, drafter: Box<dyn Drafter + Send>) -> Self {
        self.drafter = Some(drafter);
        self
    }

    /// As a model whose state cannot be cut: only whole states come back.
    #[must_use]
    pub fn recurrent(mut self) -> Self {
        self.recurrent = true;
        self
    }

    /// Fails to save or restore a state every `times`.
    #[must_use]
    pub fn forgetful(mut self, times: usize) -> Self {
        self.forgetful = times;
        self
    }

    fn forgets(&mut self) -> bool {
        self.states += 1;
        self.forgetful > 0 && self.states.is_multiple_of(self.forgetful)
    }

    /// Counts the rows that are computed.
    #[must_use]
    pub fn counting(mut self, work: Arc<AtomicUsize>) -> Self {
        self.work = work;
        self
    }

    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }
}

/// Tokens that were computed with adapters are remembered with this added, once for each letter that it moves.
const MARK: Token = 1 << 12;

/// A small letter, so many letters further on.
pub fn moved(token: Token, letters: usize) -> Token {
    let (first, last) = (Token::from(b'a'), Token::from(b'z'));
    if !(first..=last).contains(&token) {
        return token;
    }
    let by = Token::try_from(letters % 26).unwrap_or(0);
    first + (token - first + by) % 26
}

/// The next token after `tokens`: what follows the last newline repeats, byte by byte, the line before it.
pub(crate) fn answer(marked: &[Token]) -> Token {
    let letters = marked.iter().map(|token| token / MARK).sum::<Token>();
    let tokens: Vec<_> = marked.iter().map(|token| token % MARK).collect();
    let newline = Token::from(b'\n');
    let Some(end) = tokens.iter().rposition(|&token| token == newline) else {
        return newline;
    };
    let line = tokens[..end]
        .rsplit(|&token| token == newline)
        .next()
        .unwrap_or_default();
    let next = line.get(tokens.len() - end - 1).copied().unwrap_or(EOS);
    moved(next, usize::try_from(letters).unwrap_or(0))
}

impl Model for Fake {
    type Sampler = ();

    fn vocab(&self) -> &dyn Vocab {
        &FakeVocab
    }

    fn context(&self) -> u32 {
        self.context
    }

    fn sequences(&self) -> u32 {
        u32::try_from(self.sequences.len()).unwrap_or(u32::MAX)
    }

    fn batch(&self) -> usize {
        self.batch
    }

    fn ubatch(&self) -> usize {
        self.batch / 4
    }

    fn outputs(&self) -> usize {
        self.sequences.len() + 16
    }

    fn cuts_anywhere(&self) -> bool {
        !self.recurrent
    }

    fn adapt(&mut self, adapters: &[Scaled]) {
        let letters = adapters.iter().map(|one| {
            let number = Token::try_from(one.adapter).unwrap_or(0) + 1;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "tests have small whole scales"
            )]
            let scale = one.scale as Token;
            number * scale
        });
        self.worn = MARK * letters.sum::<Token>();
    }

    fn takes_back(&self) -> usize {
        if self.recurrent {
            self.takes_back
        } else {
            usize::MAX
        }
    }

    fn drafter(&mut self) -> Option<&mut dyn Drafter> {
        match &mut self.drafter {
            Some(drafter) => Some(&mut **drafter),
            None => None,
        }
    }

    fn decode(&mut self, rows: &[Row], abandoned: &dyn Fn() -> bool) -> Result<(), DecodeError> {
        if let Some(error) = (self.fault)(rows) {
            return Err(error);
        }
        if abandoned() {
            return Err(DecodeError::Abandoned);
        }
        if rows.len() > self.batch || rows.is_empty() {
            return Err(DecodeError::Refused(format!("{} rows", rows.len())));
        }
        self.next.clear();
        self.latest.fill(0);
        self.work.fetch_add(rows.len(), Ordering::Relaxed);
        for (at, row) in rows.iter().enumerate() {
            let tokens = &mut self.sequences[row.sequence as usize];
            if tokens.len() != row.position as usize || row.position >= self.context {
                return Err(DecodeError::Refused(format!(
                    "position {} after {}",
                    row.position,
                    tokens.len()
                )));
            }
            tokens.push(row.token + self.worn);
            self.latest[row.sequence as usize] += 1;
            if row.logits {
                self.next.insert(at, answer(tokens));
            }
        }
        Ok(())
    }

    /// Rows that lie one after the other; each is remembered as a `#`.
    fn decode_image(
        &mut self,
        rows: ImageRows<'_>,
        abandoned: &dyn Fn() -> bool,
    ) -> Result<(), DecodeError> {
        if abandoned() {
            return Err(DecodeError::Abandoned);
        }
        if rows.count == 0 || rows.count > self.ubatch() {
            return Err(DecodeError::Refused(format!("{} rows", rows.count)));
        }
        self.next.clear();
        self.work.fetch_add(rows.count, Ordering::Relaxed);
        let tokens = &mut self.sequences[rows.sequence as usize];
        let place = rows.position as usize + rows.first;
        if tokens.len() != place || rows.image.embeddings(rows.first, rows.count).is_none() {
            return Err(DecodeError::Refused(format!(
                "position {place} after {}",
                tokens.len()
            )));
        }
        tokens.resize(place + rows.count, Token::from(b'#') + self.worn);
        if rows.logits {
            self.next.insert(rows.count - 1, answer(tokens));
        }
        Ok(())
    }

    fn truncate(&mut self, sequence: u32, from: u32) -> bool {
        let tokens = &mut self.sequences[sequence as usize];
        let cut = (from as usize) < tokens.len() && from > 0;
        let back = tokens.len().saturating_sub(from as usize);
        // As llama.cpp does it: once after a step, and never all of its rows.
        let latest = std::mem::take(&mut self.latest[sequence as usize]);
        if cut && self.recurrent && (back > self.takes_back || back >= latest) {
            tokens.clear();
            return false;
        }
        tokens.truncate(from as usize);
        true
    }

    fn copy(&mut self, from: u32, to: u32, _: u32) -> bool {
        if self.forgets() {
            return false;
        }
        assert!(
            self.sequences[to as usize].is_empty(),
            "only empty ones are copied to"
        );
        self.sequences[to as usize] = self.sequences[from as usize].clone();
        true
    }

    fn shift(&mut self, sequence: u32, from: u32, count: u32) -> bool {
        let tokens = &mut self.sequences[sequence as usize];
        if self.recurrent {
            tokens.clear();
            return false;
        }
        tokens.drain(from as usize..(from + count) as usize);
        true
    }

    fn save(&mut self, sequence: u32, _: Part) -> Option<Vec<u8>> {
        if self.forgets() {
            return None;
        }
        let tokens = &self.sequences[sequence as usize];
        Some(
            tokens
                .iter()
                .flat_map(|token| token.to_le_bytes())
                .collect(),
        )
    }

    fn restore(&mut self, sequence: u32, _: Part, state: &[u8]) -> bool {
        if self.forgets() {
            self.sequences[sequence as usize].clear();
            return false;
        }
        let (tokens, rest) = state.as_chunks();
        self.sequences[sequence as usize] = tokens
            .iter()
            .map(|&token| Token::from_le_bytes(token))
            .collect();
        rest.is_empty()
    }

    fn reset(&mut self) -> Result<(), DecodeError> {
        self.sequences.iter_mut().for_each(Vec::clear);
        Ok(())
    }

    fn sampler(&mut self, _: &Sampling, grammar: Option<&Grammar>) -> Result<(), String> {
        match grammar {
            Some(Grammar::Gbnf(grammar)) if grammar.gbnf.contains("bad") => {
                Err("the grammar cannot be parsed".into())
            }
            _ => Ok(()),
        }
    }

    fn observe(&mut self, (): &mut (), _: Token) {}

    fn likeliest(&mut self, row: usize) -> Option<(Token, f32)> {
        Some((*self.next.get(&row)?, 0.9))
    }

    fn sample(
        &mut self,
        (): &mut (),
        row: usize,
        logprobs: Option<u8>,
    ) -> Result<Sampled, SampleError> {
        let token = *self.next.get(&row).ok_or(SampleError::NotFinite)?;
        let scores = logprobs.map(|top| {
            let others = [(token, -0.5), (EOS, -1.5)];
            (-0.5, others.into_iter().take(usize::from(top)).collect())
        });
        Ok(Sampled { token, scores })
    }

    /// What is foreseen is likely, all else is not.
    fn score(&mut self, row: usize, token: Token, top: u8) -> Option<Scores> {
        let likely = *self.next.get(&row)?;
        let logprob = if token == likely { -0.5 } else { -2.5 };
        let others = [(likely, -0.5), (EOS, -1.5)];
        Some((logprob, others.into_iter().take(usize::from(top)).collect()))
    }
}
