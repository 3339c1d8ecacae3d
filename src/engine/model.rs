//! The few calls the engine thread needs from a model, and the vocabulary that any thread may read.

use std::time::Duration;

use super::{Grammar, Sampling, Scaled, Token, draft::Drafter, media::ImageRows};

/// Text to tokens and back. Shared by the HTTP side and the engine thread.
pub trait Vocab: Send + Sync + 'static {
    /// Number of tokens; ids are `0..size`.
    fn size(&self) -> u32;
    /// `add_special`: put the model's own begin (and end) tokens around the text.
    /// `parse_special`: read control tokens written in the text as such.
    fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<Token>;
    /// Appends the bytes of one token; control tokens only when `special`.
    fn piece(&self, token: Token, special: bool, out: &mut Vec<u8>);
    /// Whether the token ends generation (EOS, EOT and their kin).
    fn is_eog(&self, token: Token) -> bool;
    /// Whether the token stands for no text but for structure: where a turn begins, for one.
    fn is_control(&self, token: Token) -> bool;
    /// The tokens that mark a gap in a text.
    fn fim(&self) -> Fim {
        Fim::default()
    }
}

/// Tokens with which a model is asked to fill a gap (fill in the middle), as far as its vocabulary has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fim {
    /// Put before any prompt.
    pub begin: Option<Token>,
    pub prefix: Option<Token>,
    pub suffix: Option<Token>,
    pub middle: Option<Token>,
    /// Before the name of a repository.
    pub repository: Option<Token>,
    /// Before the name of a file.
    pub file: Option<Token>,
}

/// What the file says of its model, for whoever asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// llama.cpp's name of it, such as `llama` or `qwen3moe`.
    pub architecture: String,
    pub parameters: u64,
    /// Of all tensors.
    pub bytes: u64,
    /// llama.cpp's name of the quantisation, such as `Q4_K - Medium`.
    pub quantization: String,
    /// Tokens of context the model was trained with.
    pub trained_context: u32,
    /// Elements of one hidden state.
    pub width: u32,
    pub vocabulary: u32,
    /// llama.cpp's number of the vocabulary's kind.
    pub vocabulary_type: i32,
}

/// One token to compute, at one place of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub token: Token,
    pub position: u32,
    pub sequence: u32,
    /// Whether its logits will be read.
    pub logits: bool,
}

/// How much of a sequence's state is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// What cutting does not bring back: recurrent states, and windows of attention.
    Rest,
}

/// One sequence's turn to choose: from the rows of the last `decode`, as many tokens as hold.
pub struct Choice<'a, S> {
    pub sampler: &'a mut S,
    /// The first row; the row after it belongs to `guesses[0]`, and so on.
    pub row: usize,
    /// Tokens that were computed in the hope that they are chosen.
    pub guesses: &'a [Token],
    pub logprobs: Option<u8>,
}

/// A sampled token; scores only when asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    pub token: Token,
    /// Before any sampler.
    pub scores: Option<Scores>,
}

/// Log-probability of a token, and those of the best alternatives.
pub type Scores = (f32, Vec<(Token, f32)>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No room in the KV cache; nothing changed.
    #[error("the KV cache is full")]
    Full,
    /// The batch was refused; nothing changed.
    #[error("{0}")]
    Refused(String),
    /// The caller gave up; whole ubatches of the batch may have been computed.
    #[error("abandoned")]
    Abandoned,
    /// The context is broken and must not be used again.
    #[error("{0}")]
    Broken(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// In words for the client: the request's own constraint cannot be followed any further.
    #[error("{0}")]
    Grammar(String),
    #[error("no finite logits")]
    NotFinite,
}

/// The device behind the engine thread.
pub trait Model: 'static {
    /// Per-request sampler state.
    type Sampler;

    fn vocab(&self) -> &dyn Vocab;
    /// Tokens of context for each sequence.
    fn context(&self) -> u32;
    fn sequences(&self) -> u32;
    /// Most rows of one `decode`.
    fn batch(&self) -> usize;
    /// Most rows that the device computes at once.
    fn ubatch(&self) -> usize;
    /// Most rows of a step that serves prompts only.
    fn prompt_rows(&self) -> usize {
        self.ubatch()
    }
    /// How long the device takes for a ubatch of one prompt, if it was tried.
    fn ubatch_time(&self) -> Option<Duration> {
        None
    }
    /// Most rows of one `decode` that ask for logits; at least one for each sequence.
    fn outputs(&self) -> usize;
    /// Whether a sequence can be cut at any token; otherwise only its end and what was saved can be taken up.
    fn cuts_anywhere(&self) -> bool;
    /// How many of a sequence's latest rows [`Self::truncate`] can take back after a `decode` that computed at least one
    /// more of them: guesses that did not come true.
    fn takes_back(&self) -> usize {
        if self.cuts_anywhere() { usize::MAX } else { 0 }
    }
    /// Who guesses what comes next, if anybody does.
    fn drafter(&mut self) -> Option<&mut dyn Drafter> {
        None
    }
    /// Whether the cells that hold a state, and with them the order of sums over it, follow from how it came there and
    /// not from what it is. [`Self::restore`] lays it out in the same way each time.
    fn layout_varies(&self) -> bool {
        false
    }

    /// What is computed from now on is computed with these adapters and no others.
    fn adapt(&mut self, _adapters: &[Scaled]) {}
    /// Computes all rows or none. Rows of one sequence are in rising position, sequences ascending. `abandoned` is
    /// asked now and then whether anybody still waits.
    fn decode(&mut self, rows: &[Row], abandoned: &dyn Fn() -> bool) -> Result<(), DecodeError>;
    /// Computes rows of an image, as [`Self::decode`] does those of tokens. No more than a ubatch.
    fn decode_image(
        &mut self,
        _rows: ImageRows<'_>,
        _abandoned: &dyn Fn() -> bool,
    ) -> Result<(), DecodeError> {
        Err(DecodeError::Refused("this model takes no images".into()))
    }
    /// Forgets positions `from..` of a sequence. `false`: it cannot be cut there and is now empty.
    fn truncate(&mut self, sequence: u32, from: u32) -> bool;
    /// Makes `to`, which is empty, hold all `computed` tokens that `from` holds, without a way through host memory.
    /// `false`: that is not possible now, or does not pay; nothing changed.
    fn copy(&mut self, _from: u32, _to: u32, _computed: u32) -> bool {
        false
    }
    /// Forgets so many positions of a sequence from `from` on, and moves those after them there. `false`: it cannot, and the
    /// sequence is now empty.
    fn shift(&mut self, sequence: u32, _from: u32, _count: u32) -> bool {
        self.truncate(sequence, 0);
        false
    }
    /// The sequence's state as bytes, for [`Self::restore`] while this model is loaded; `None`: it cannot be had.
    fn save(&mut self, sequence: u32, part: Part) -> Option<Vec<u8>>;
    /// Puts a state in place of the sequence's own. `false`: it was not taken, and the sequence is now empty.
    fn restore(&mut self, sequence: u32, part: Part, state: &[u8]) -> bool;
    /// Empties every sequence, also after [`DecodeError::Broken`].
    fn reset(&mut self) -> Result<(), DecodeError>;

    /// `Err`: the request asked for something that the engine cannot do, in words for the client.
    fn sampler(
        &mut self,
        sampling: &Sampling,
        grammar: Option<&Grammar>,
    ) -> Result<Self::Sampler, String>;
    /// Shows the sampler a token that it did not choose (of the prompt).
    fn observe(&mut self, sampler: &mut Self::Sampler, token: Token);
    /// Chooses and accepts a token from the logits of row `row` of the last `decode`.
    fn sample(
        &mut self,
        sampler: &mut Self::Sampler,
        row: usize,
        logprobs: Option<u8>,
    ) -> Result<Sampled, SampleError>;
    /// The most likely token of row `row` of the last `decode`, and about how likely it is. `None`: there are no finite
    /// logits.
    fn likeliest(&mut self, row: usize) -> Option<(Token, f32)>;
    /// Log-probability of `token` and of the `top` best alternatives from the logits of row `row` of the last `decode`;
    /// `None`: they are not finite, or the row asked for none.
    fn score(&mut self, row: usize, token: Token, top: u8) -> Option<Scores>;
    /// The tokens, at most `most`, that the sampler's constraint leaves no choice about, already accepted: what
    /// [`Model::sample`] would choose next, one by one, without the need to compute logits for it. Empty where there
    /// is a choice. An end-of-generation token among them comes last and is given once.
    fn forced(&mut self, _sampler: &mut Self::Sampler, _most: usize) -> Vec<Token> {
        Vec::new()
    }

    /// For each choice the tokens that hold: guesses that were chosen indeed, then one more.
    fn choose(&mut self, choices: Vec<Choice<'_, Self::Sampler>>) -> Vec<Chosen> {
        choices
            .into_iter()
            .map(|mut choice| {
                follow(&mut choice, |sampler, row, logprobs| {
                    self.sample(sampler, row, logprobs)
                })
            })
            .collect()
    }
}

/// Tokens in order; an error ends them.
pub type Chosen = (Vec<Sampled>, Option<SampleError>);

/// Samples row after row as long as the guesses come true.
pub fn follow<S>(
    choice: &mut Choice<'_, S>,
    mut sample: impl FnMut(&mut S, usize, Option<u8>) -> Result<Sampled, SampleError>,
) -> Chosen {
    let mut tokens = Vec::with_capacity(1);
    for at in 0..=choice.guesses.len() {
        match sample(choice.sampler, choice.row + at, choice.logprobs) {
            Ok(sampled) => {
                let hit = choice.guesses.get(at) == Some(&sampled.token);
                tokens.push(sampled);
                if !hit {
                    break;
                }
            }
            Err(error) => return (tokens, Some(error)),
        }
    }
    (tokens, None)
}
