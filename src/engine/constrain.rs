//! Constraints on answers: JSON schemas, regular expressions and Lark grammars, compiled once by llguidance.
//!
//! Compiling is for the HTTP side; the engine thread gets what is compiled and only walks it.

mod cache;
mod guide;
mod schema;
mod source;
mod vocabulary;

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use llguidance::{
    Matcher, ParserFactory,
    api::{GrammarInit, ParserLimits, TopLevelGrammar, ValidationResult},
    earley::SlicedBiasComputer,
    panic_utils,
};
use serde_json::Value;
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};
use toktrie::InferenceCapabilities;

use super::{Token, model::Vocab};
use cache::Cache;
pub use guide::Guide;
pub use source::{Body, Frame, Part, Source, Strictness};

/// Constraints compiled at a time. With the fuel that each may burn, this bounds what schemas cost the machine.
const AT_ONCE: usize = 2;
/// How long a constraint waits for its turn.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long compiling may take; the largest schemas in use need a tenth of a second.
const LONGEST: Duration = Duration::from_secs(5);
/// Reserved, not used: llguidance calls itself for every level of a schema and every reference that leads to another.
const STACK_BYTES: usize = 256 << 20;
/// Tokens of a begun answer that a constraint reads.
const MOST_BEGUN: usize = 4096;

/// Why a constraint cannot be compiled, in words for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{why}")]
    Schema {
        /// JSON pointer into the schema.
        pointer: String,
        why: String,
    },
    #[error("{0}")]
    Text(String),
    #[error("it takes longer than {0:?} to compile")]
    TooSlow(Duration),
    /// The request is fine.
    #[error("others took all of {0:?}")]
    Busy(Duration),
    /// The request is fine.
    #[error("{0}")]
    Broken(String),
}

/// Something that answers can be held to; shared by all requests that ask for the same.
pub struct Constraint {
    /// Never walked itself: its lexer would grow with every answer.
    pristine: Matcher,
    ends: Vec<Token>,
    /// Parts of it that are not enforced.
    warnings: Vec<String>,
    /// Estimated.
    bytes: usize,
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint")
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

impl Constraint {
    /// The state of a new answer.
    pub fn begin(&self) -> Guide {
        Guide::new(self.pristine.deep_clone(), self.ends.clone())
    }

    /// What was asked for and is not enforced.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Makes and keeps the constraints of one model.
pub struct Constraints {
    vocab: Arc<dyn Vocab>,
    factory: OnceLock<Result<ParserFactory, String>>,
    cache: Cache,
    turns: Arc<Semaphore>,
}

impl Constraints {
    pub fn new(vocab: Arc<dyn Vocab>) -> Arc<Self> {
        Arc::new(Self {
            vocab,
            factory: OnceLock::new(),
            cache: Cache::default(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        })
    }

    /// Reads the vocabulary on a thread of its own, so that the first constraint need not wait for it.
    pub fn prepare(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let work = move || {
            let began = Instant::now();
            let made = this.factory().is_ok();
            tracing::debug!(seconds = began.elapsed().as_secs_f64(), made, "constraints");
        };
        if let Err(error) = thread::Builder::new().name("constrain".into()).spawn(work) {
            tracing::warn!(%error, "the vocabulary is read with the first constraint");
        }
    }

    /// The constraint, compiled now or earlier.
    pub async fn compile(self: &Arc<Self>, source: Source) -> Result<Arc<Constraint>, Refused> {
        source.check().map_err(Refused::Text)?;
        let key = source.key();
        let place = self.cache.place(key);
        let made = place
            .get_or_try_init(|| self.compile_elsewhere(source))
            .await;
        let made = made.map(Arc::clone);
        if made.is_err() {
            self.cache.drop_empty(key);
        }
        made
    }

    async fn compile_elsewhere(
        self: &Arc<Self>,
        source: Source,
    ) -> Result<Arc<Constraint>, Refused> {
        let turn = timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Refused::Busy(PATIENCE));
        };
        let (tell, told) = oneshot::channel();
        let this = Arc::clone(self);
        let work = move || {
            let made = catch(|| this.make(&source)).map_err(Refused::Broken);
            drop(turn);
            let _ = tell.send(made.flatten());
        };
        let thread = thread::Builder::new().name("constrain".into());
        thread
            .stack_size(STACK_BYTES)
            .spawn(work)
            .map_err(|error| Refused::Broken(error.to_string()))?;
        match timeout(LONGEST, told).await {
            Ok(Ok(made)) => made.map(Arc::new),
            Ok(Err(_)) => Err(Refused::Broken("no constraint was made".to_owned())),
            // It goes on until it has burnt its fuel, and keeps its turn as long.
            Err(_) => Err(Refused::TooSlow(LONGEST)),
        }
    }

    /// Compiles here and now; deep schemas need a deep stack.
    fn make(&self, source: &Source) -> Result<Constraint, Refused> {
        let factory = self.factory().map_err(Refused::Broken)?;
        let (schema, mut warnings) = match &source.body {
            Body::Json { schema, strictness } => {
                let probe = |schema: Value| {
                    let grammar = TopLevelGrammar::from_json_schema(schema);
                    catch(|| validate(factory, grammar)).flatten()
                };
                let settled = schema::settle(schema, *strictness, &probe)?;
                (Some(settled.schema), settled.warnings)
            }
            Body::Regex(_) | Body::Lark(_) | Body::Choice(_) => (None, Vec::new()),
        };
        let grammar = source.grammar(schema, &*self.vocab);
        let grammar = grammar.map_err(Refused::Text)?;
        let parser = factory.create_parser(grammar);
        let mut pristine = Matcher::new(parser);
        if let Some(why) = pristine.get_error() {
            return Err(Refused::Text(match source.body {
                Body::Regex(_) => of_regex(&why),
                _ => tidy(&why),
            }));
        }
        warnings.extend(pristine.grammar_warnings());
        self.begin(&mut pristine, &source.frame.begun)?;
        // What allows nothing is found here and not in the middle of an answer.
        pristine
            .compute_mask_or_eos()
            .map_err(|error| Refused::Text(format!("it allows no answer: {}", brief(error))))?;
        let ends = factory.tok_env().tok_trie().eos_tokens();
        Ok(Constraint {
            pristine,
            ends: ends.iter().map(|token| token.cast_signed()).collect(),
            warnings,
            bytes: (64 << 10) + 64 * source.size(),
        })
    }

    /// Walks over the part of the answer that the prompt holds.
    fn begin(&self, matcher: &mut Matcher, begun: &str) -> Result<(), Refused> {
        let tokens = self.vocab.tokenize(begun, false, true);
        let refused =
            || Refused::Text("it does not allow the beginning of the answer that is given".into());
        if tokens.len() > MOST_BEGUN {
            return Err(refused());
        }
        for token in tokens {
            matcher
                .consume_token(token.cast_unsigned())
                .map_err(|_| refused())?;
        }
        Ok(())
    }

    fn factory(&self) -> Result<&ParserFactory, String> {
        let made = self.factory.get_or_init(|| {
            catch(|| {
                let tokens = vocabulary::environment(Arc::clone(&self.vocab))?;
                let slices = SlicedBiasComputer::general_slices();
                let factory =
                    ParserFactory::new(&tokens, InferenceCapabilities::default(), &slices);
                let mut factory = factory.map_err(brief)?;
                factory.quiet();
                *factory.limits_mut() = limits();
                Ok(factory)
            })
            .flatten()
        });
        made.as_ref().map_err(Clone::clone)
    }
}

/// llguidance's own, where they bound one step of an answer to some milliseconds, and less memory for its states.
fn limits() -> ParserLimits {
    ParserLimits {
        max_lexer_states: 50_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

fn validate(factory: &ParserFactory, grammar: TopLevelGrammar) -> Result<(), String> {
    let tokens = Some(factory.tok_env().clone());
    match GrammarInit::Serialized(grammar).validate(tokens, factory.limits().clone()) {
        ValidationResult::Valid | ValidationResult::Warnings(_) => Ok(()),
        ValidationResult::Error(why) => Err(why),
    }
}

/// A panic of llguidance ends one request and is not printed: it may quote what a client sent.
fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    panic_utils::catch_unwind(AssertUnwindSafe(|| Ok(work()))).map_err(brief)
}

/// An error of llguidance without the state of the parser.
fn brief(error: impl fmt::Display) -> String {
    tidy(&error.to_string())
}

/// The last line of the drawing that is made of a wrong regular expression, without the grammar around it.
fn of_regex(why: &str) -> String {
    match why.lines().find_map(|line| line.strip_prefix("error: ")) {
        Some(error) => format!("not a regular expression: {error}"),
        None => tidy(why),
    }
}

fn tidy(why: &str) -> String {
    const LONGEST: usize = 400;
    let why = why.split("\n<").next().unwrap_or_default().trim();
    match why.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &why[..end]),
        None => why.to_owned(),
    }
}

#[cfg(test)]
mod tests;
