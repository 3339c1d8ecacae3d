//! A context: the KV caches, compute buffers and threads that decode batches.

mod cells;
mod compute;
mod guesser;
mod warm;

use std::{collections::HashSet, path::PathBuf, ptr, sync::Arc, time::Duration};

use llama_cpp_sys_2 as sys;

use self::guesser::Guesser;
use super::{
    Buffer, LoadError, Sampler, Weights,
    adapter::Adapters,
    backend,
    batch::{Batch, ImageBatch},
    choose,
    copies::Copies,
    guard::{self, Shown},
    params,
    question::Question,
    scores::{self, scores},
};
use crate::{
    config::{EngineConfig, Mtp, Overflow, Speculate},
    engine::{
        Grammar, Sampling, Scaled, Token,
        draft::Drafter,
        fit::{Plan, Settings},
        media::{Attention, ImageRows},
        model::{
            Choice, Chosen, DecodeError, Model, Part, Row, SampleError, Sampled, Scores, Vocab,
            follow,
        },
        threads,
    },
};

/// A context over the weights, on the thread that decodes.
pub struct Llama {
    context: *mut sys::llama_context,
    adapters: Adapters,
    weights: Arc<Weights>,
    /// As configured, with the plan's context.
    config: EngineConfig,
    settings: Settings,
    /// Whether any layer lies on a GPU.
    gpu: bool,
    batch: Batch,
    image_batch: ImageBatch,
    /// Who is asked during a decode whether anybody still waits; llama.cpp holds its address.
    question: Question,
    copies: Copies,
    /// Sequences whose recurrent states were taken back by the latest cut: until they are computed further, the states that
    /// lie where others would look are those of guesses.
    taken_back: HashSet<u32>,
    ubatch_time: Option<Duration>,
    candidates: Vec<sys::llama_token_data>,
    /// Threads that sample when there is much to sample.
    samplers: usize,
    /// More than one: prompts are computed in larger steps, so that all GPUs have work.
    gpus: usize,
    guesser: Option<Guesser>,
}

/// Logits below which a second thread for sampling costs more than it saves: some 200 µs of work.
const WORTH_A_THREAD: usize = 1 << 19;

impl Llama {
    /// Makes the context and runs a warm-up decode. Call on the thread that will decode: llama.cpp's
    /// worker team belongs to it.
    pub fn open(
        weights: Arc<Weights>,
        config: &EngineConfig,
        plan: &Plan,
    ) -> Result<Self, LoadError> {
        Self::open_with(weights, config, plan, &[])
    }

    /// The same for a model that jobs may compute with these adapters.
    pub fn open_with(
        weights: Arc<Weights>,
        config: &EngineConfig,
        plan: &Plan,
        adapters: &[PathBuf],
    ) -> Result<Self, LoadError> {
        // The worker team inherits this.
        if let Some(cpus) = config.cpu_mask.as_deref().and_then(threads::parse_list) {
            threads::keep_to(&cpus)
                .map_err(|error| LoadError::Context(format!("engine.cpu_mask: {error}")))?;
        }
        let rows = config.batch.max(config.parallel) as usize;
        let mut llama = Self {
            context: ptr::null_mut(),
            adapters: Adapters::load(&weights, adapters.iter().map(PathBuf::as_path))?,
            batch: Batch::new(rows),
            image_batch: ImageBatch::new(weights.embedding_width(), weights.positions()),
            config: EngineConfig {
                context: plan.context,
                speculate: Speculate {
                    mtp: if plan.settings.mtp { Mtp::On } else { Mtp::Off },
                    ..config.speculate.clone()
                },
                ..config.clone()
            },
            settings: plan.settings.clone(),
            gpu: plan.uses_gpu(),
            gpus: plan.gpus(),
            samplers: threads::decoding(config).clamp(1, 8) as usize,
            question: Question::new(),
            copies: Copies::default(),
            taken_back: HashSet::new(),
            ubatch_time: None,
            guesser: None,
            candidates: Vec::with_capacity(weights.size() as usize),
            weights,
        };
        llama.context = llama.make_context()?;
        llama.check_overflow()?;
        if plan.settings.mtp {
            llama.guesser = Some(Guesser::Heads(Box::new(llama.heads()?)));
        }
        llama.warm_up()?;
        let speculate = &llama.config.speculate;
        if speculate.ngram && !llama.config.reproducible && llama.takes_back() == 0 {
            tracing::warn!(
                "engine.speculate.ngram has no effect: wrong guesses cannot be taken back from this kind of model"
            );
        }
        Ok(llama)
    }

    fn make_context(&self) -> Result<*mut sys::llama_context, LoadError> {
        let mut params = params::context(&self.config, self.config.context, &self.settings)?;
        self.question.attach(&mut params);
        backend::take_errors();
        let inside = |fault| LoadError::Context(backend::reason(fault));
        // SAFETY: the weights outlive the context: `self` holds both, and frees the context first.
        let context =
            unsafe { guard::context(self.weights.as_mut_ptr(), params) }.map_err(inside)?;
        if self.settings.mtp {
            // SAFETY: the context was just made.
            unsafe { guard::show_states(context, Shown::Every) }.map_err(inside)?;
        }
        Ok(context)
    }

    fn check_overflow(&self) -> Result<(), LoadError> {
        // SAFETY: the context is valid.
        let can = || unsafe { sys::llama_memory_can_shift(sys::llama_get_memory(self.context)) };
        if self.config.overflow == Overflow::Error || (self.weights.cuts_anywhere() && can()) {
            return Ok(());
        }
        Err(LoadError::Refused {
            field: "engine.overflow",
            why: "'shift needs a model that sees its whole context in every layer and places tokens on a line, which this \
                  one does not; accepted: 'error"
                .into(),
        })
    }

    /// The memory that model and context really take.
    pub fn buffers(&self) -> Vec<Buffer> {
        // SAFETY: the context is valid.
        unsafe { guard::buffers(self.context) }.unwrap_or_default()
    }

    fn clear(&mut self) {
        // SAFETY: the context is valid.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.context), true) };
        if let Some(heads) = self.own_heads() {
            heads.clear();
        }
    }

    fn logits(&self, row: usize) -> Option<&[f32]> {
        if !self.batch.asked(row) {
            return None; // llama.cpp asserts on rows that asked for none
        }
        let row = i32::try_from(row).ok()?;
        // SAFETY: the row is of the last decode and asked for logits; there is one for each token of the
        // vocabulary, valid until the next decode, which needs `&mut self`.
        unsafe {
            let logits = sys::llama_get_logits_ith(self.context, row);
            (!logits.is_null())
                .then(|| std::slice::from_raw_parts(logits, self.weights.size() as usize))
        }
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        // SAFETY: nothing else holds the context; null is allowed.
        unsafe { sys::llama_free(self.context) };
    }
}

impl Model for Llama {
    type Sampler = Sampler;

    fn vocab(&self) -> &dyn Vocab {
        &*self.weights
    }

    fn context(&self) -> u32 {
        self.config.context
    }

    fn sequences(&self) -> u32 {
        self.config.parallel
    }

    fn batch(&self) -> usize {
        self.batch.room
    }

    fn ubatch(&self) -> usize {
        self.config.ubatch as usize
    }

    fn prompt_rows(&self) -> usize {
        if self.gpus > 1 {
            self.batch()
        } else {
            self.ubatch()
        }
    }

    fn ubatch_time(&self) -> Option<Duration> {
        self.ubatch_time
    }

    fn outputs(&self) -> usize {
        params::outputs(&self.config) as usize
    }

    fn cuts_anywhere(&self) -> bool {
        self.weights.cuts_anywhere()
    }

    fn takes_back(&self) -> usize {
        if self.cuts_anywhere() {
            return usize::MAX;
        }
        // SAFETY: the context is valid.
        unsafe { sys::llama_n_rs_seq(self.context) as usize }
    }

    fn drafter(&mut self) -> Option<&mut dyn Drafter> {
        self.guesser.as_mut().map(Guesser::drafter)
    }

    fn layout_varies(&self) -> bool {
        self.weights.has_window()
    }

    fn adapt(&mut self, adapters: &[Scaled]) {
        // SAFETY: the context is valid and ours, and of the adapters' model.
        unsafe { self.adapters.put_on(self.context, adapters) };
    }

    fn decode(&mut self, rows: &[Row], abandoned: &dyn Fn() -> bool) -> Result<(), DecodeError> {
        self.check(rows)?;
        let batch = self.batch.fill(rows);
        // SAFETY: `check` holds the batch to its limits.
        unsafe { self.compute(batch, abandoned) }?;
        for row in rows {
            self.taken_back.remove(&row.sequence);
        }
        self.follow(rows);
        Ok(())
    }

    fn decode_image(
        &mut self,
        rows: ImageRows<'_>,
        abandoned: &dyn Fn() -> bool,
    ) -> Result<(), DecodeError> {
        self.check_image(rows)?;
        let whole = rows.image.attention() == Attention::Whole;
        let Some(batch) = self.image_batch.fill(rows) else {
            return Err(DecodeError::Refused(
                "the image's rows do not fit this model".into(),
            ));
        };
        self.batch.ask_last(rows.count, rows.logits);
        // SAFETY: the context is valid and ours.
        unsafe { sys::llama_set_causal_attn(self.context, !whole) };
        // SAFETY: `check_image` holds the batch to its limits.
        let outcome = unsafe { self.compute(batch, abandoned) };
        // SAFETY: as above.
        unsafe { sys::llama_set_causal_attn(self.context, true) };
        self.taken_back.remove(&rows.sequence);
        outcome
    }

    fn truncate(&mut self, sequence: u32, from: u32) -> bool {
        self.cut(sequence, from)
    }

    fn copy(&mut self, from: u32, to: u32, computed: u32) -> bool {
        self.copy_cells(from, to, computed)
    }

    fn shift(&mut self, sequence: u32, from: u32, count: u32) -> bool {
        self.shift_cells(sequence, from, count)
    }

    fn save(&mut self, sequence: u32, part: Part) -> Option<Vec<u8>> {
        self.save_state(sequence, part)
    }

    fn restore(&mut self, sequence: u32, part: Part, state: &[u8]) -> bool {
        self.restore_state(sequence, part, state)
    }

    fn reset(&mut self) -> Result<(), DecodeError> {
        if let Some(heads) = self.own_heads() {
            heads.clear();
        }
        // SAFETY: nothing else holds the context.
        unsafe { sys::llama_free(self.context) };
        self.context = ptr::null_mut();
        self.copies.made();
        self.adapters.forget();
        self.taken_back.clear();
        self.context = self
            .make_context()
            .map_err(|error| DecodeError::Broken(error.to_string()))?;
        Ok(())
    }

    fn sampler(
        &mut self,
        sampling: &Sampling,
        grammar: Option<&Grammar>,
    ) -> Result<Sampler, String> {
        Sampler::new(&self.weights, sampling, grammar, self.config.context)
    }

    fn observe(&mut self, sampler: &mut Sampler, token: Token) {
        sampler.observe(token);
    }

    fn sample(
        &mut self,
        sampler: &mut Sampler,
        row: usize,
        logprobs: Option<u8>,
    ) -> Result<Sampled, SampleError> {
        let mut candidates = std::mem::take(&mut self.candidates);
        let outcome = choose::sample(self.logits(row), sampler, logprobs, &mut candidates);
        self.candidates = candidates;
        outcome
    }

    fn likeliest(&mut self, row: usize) -> Option<(Token, f32)> {
        scores::likeliest(self.logits(row)?)
    }

    fn score(&mut self, row: usize, token: Token, top: u8) -> Option<Scores> {
        let scores = scores(self.logits(row)?, token, top);
        (!scores.0.is_nan()).then_some(scores)
    }

    fn forced(&mut self, sampler: &mut Sampler, most: usize) -> Vec<Token> {
        sampler.forced(most)
    }

    fn choose(&mut self, choices: Vec<Choice<'_, Sampler>>) -> Vec<Chosen> {
        let work = choices.len() * self.weights.size() as usize;
        let threads = (work / WORTH_A_THREAD + 1)
            .min(self.samplers)
            .min(choices.len());
        if threads < 2 {
            return choices
                .into_iter()
                .map(|mut choice| {
                    follow(&mut choice, |sampler, row, logprobs| {
                        self.sample(sampler, row, logprobs)
                    })
                })
                .collect();
        }
        let logits: Vec<_> = choices.iter().map(|choice| self.rows_of(choice)).collect();
        choose::together(&logits, choices, threads)
    }
}

impl Llama {
    fn rows_of(&self, choice: &Choice<'_, Sampler>) -> Vec<Option<&[f32]>> {
        let rows = choice.row..=choice.row + choice.guesses.len();
        rows.map(|row| self.logits(row)).collect()
    }
}
