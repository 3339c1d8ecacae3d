//! The encoder over llama.cpp: a context that reads whole texts and gives vectors or scores.

use std::{ptr, sync::Arc};

use llama_cpp_sys_2 as sys;

use super::{Buffer, LoadError, Weights, backend, batch::Batch, guard, params, question::Question};
use crate::{
    config::EngineConfig,
    engine::{
        Token,
        embed::{self, Facts, Output, Pairing},
        fit::{Plan, Settings},
        model::{DecodeError, Row, Vocab},
        task::{Encoding, Pooling},
        threads,
    },
};

/// A context over the weights, on the thread that decodes.
pub struct Encoder {
    context: *mut sys::llama_context,
    weights: Arc<Weights>,
    /// As configured, with the plan's context.
    config: EngineConfig,
    settings: Settings,
    pooling: Pooling,
    facts: Facts,
    batch: Batch,
    question: Question,
}

/// Tokens of a step on a CPU: enough to keep it busy, and a short text that comes meanwhile does not wait for more.
const ROWS: u32 = 512;

impl Encoder {
    /// Makes the context and reads a first text. Call on the thread that will decode: llama.cpp's worker team belongs
    /// to it. The plan must be one for an encoder.
    pub fn open(
        weights: Arc<Weights>,
        config: &EngineConfig,
        plan: &Plan,
    ) -> Result<Self, LoadError> {
        let encoding = plan.settings.task.encoding().ok_or_else(|| {
            LoadError::Context("the plan is one for a model that generates".into())
        })?;
        // The worker team inherits this.
        if let Some(cpus) = config.cpu_mask.as_deref().and_then(threads::parse_list) {
            threads::keep_to(&cpus)
                .map_err(|error| LoadError::Context(format!("engine.cpu_mask: {error}")))?;
        }
        let mut encoder = Self {
            context: ptr::null_mut(),
            batch: Batch::new(config.ubatch as usize),
            config: EngineConfig {
                context: plan.context,
                ..config.clone()
            },
            settings: plan.settings.clone(),
            pooling: encoding.pooling,
            facts: Facts {
                pooling: encoding.pooling,
                longest: 0,
                limit: None,
                width: 0,
                vocab: weights.size(),
                texts: encoding.texts,
                rows: if plan.uses_gpu() {
                    config.ubatch
                } else {
                    config.ubatch.min(ROWS)
                },
            },
            question: Question::new(),
            weights,
        };
        encoder.context = encoder.make_context()?;
        encoder.learn(encoding);
        encoder.warm_up()?;
        Ok(encoder)
    }

    fn make_context(&self) -> Result<*mut sys::llama_context, LoadError> {
        let mut params = params::context(&self.config, self.config.context, &self.settings)?;
        self.question.attach(&mut params);
        backend::take_errors();
        // SAFETY: the weights outlive the context: `self` holds both, and frees the context first.
        unsafe { guard::context(self.weights.as_mut_ptr(), params) }
            .map_err(|fault| LoadError::Context(backend::reason(fault)))
    }

    /// What only the context and the model can tell.
    fn learn(&mut self, encoding: Encoding) {
        let model = self.weights.as_mut_ptr();
        // SAFETY: context and model are valid; all of these only read.
        let (width, scores, trained) = unsafe {
            (
                sys::llama_model_n_embd_out(model),
                sys::llama_model_n_cls_out(model),
                sys::llama_model_n_ctx_train(model),
            )
        };
        let trained = u32::try_from(trained).unwrap_or(0);
        let configured = self.config.context;
        // Positions beyond those in a table would be read past its end.
        let bounded = !self.has_memory() && (1..=configured).contains(&trained);
        let context = if bounded { trained } else { configured };
        self.facts.width = match encoding.pooling {
            Pooling::Rank => scores.max(1),
            _ => u32::try_from(width).unwrap_or(0),
        };
        (self.facts.longest, self.facts.limit) =
            if self.continues() || self.config.ubatch >= context {
                (context, (!bounded).then_some("engine.context"))
            } else {
                (self.config.ubatch, Some("engine.ubatch"))
            };
    }

    /// Whether a cache holds what was read before.
    fn has_memory(&self) -> bool {
        // SAFETY: the context is valid.
        unsafe { !sys::llama_get_memory(self.context).is_null() }
    }

    /// Whether a text may be read in several ubatches: what comes later changes nothing before it, and the answer is in
    /// the last.
    fn continues(&self) -> bool {
        let pools_late = matches!(self.pooling, Pooling::Last | Pooling::None);
        // SAFETY: the context is valid.
        pools_late && self.has_memory() && unsafe { sys::llama_get_causal_attn(self.context) }
    }

    /// The first step touches every weight and makes the worker threads. With a GPU it is as large as steps can be:
    /// kernels take memory beside the planned buffers when they first run at a size.
    fn warm_up(&mut self) -> Result<(), LoadError> {
        let rows = self.facts.rows.min(self.facts.longest) as usize;
        let text = vec![0; rows];
        let outcome = embed::Encoder::encode(self, &[&text], &|| false);
        outcome.map(|_| ()).map_err(|error| {
            let advice = if self.settings.gpu_layers > 0 {
                "; if a GPU ran out of memory, raise engine.placement.margin or lower engine.ubatch"
            } else {
                ""
            };
            LoadError::WarmUp(format!("{error}{advice}"))
        })
    }

    /// The memory that model and context really take.
    pub fn buffers(&self) -> Vec<Buffer> {
        // SAFETY: the context is valid.
        let mut buffers = unsafe { guard::buffers(self.context) }.unwrap_or_default();
        // SAFETY: the model is valid.
        let width = unsafe { sys::llama_model_n_embd_out(self.weights.as_ptr()) };
        let width = u64::try_from(width).unwrap_or(0);
        let vocab = u64::from(self.weights.size());
        buffers.push(params::encoder_outputs(&self.config, vocab, width));
        buffers
    }

    fn check(&self, texts: &[&[Token]]) -> Result<(), DecodeError> {
        let tokens: usize = texts.iter().map(|text| text.len()).sum();
        let too_many = tokens > self.facts.rows as usize && texts.len() > 1;
        let wrong = |text: &&[Token]| text.is_empty() || text.len() > self.facts.longest as usize;
        if texts.is_empty()
            || texts.len() > self.facts.texts as usize
            || too_many
            || texts.iter().any(wrong)
        {
            return Err(DecodeError::Refused("the texts do not fit".into()));
        }
        Ok(())
    }

    fn compute(&mut self, rows: &[Row], abandoned: &dyn Fn() -> bool) -> Result<(), DecodeError> {
        let (context, batch) = (self.context, self.batch.fill(rows));
        let outcome = self.question.during(abandoned, || {
            // SAFETY: the context is valid and ours; a batch is at most one ubatch.
            unsafe { guard::encode(context, batch) }
        });
        outcome.map_err(|fault| fault.of_batch("llama_encode"))
    }

    fn clear(&mut self) {
        // SAFETY: the context is valid; its memory may be none.
        unsafe {
            let memory = sys::llama_get_memory(self.context);
            if !memory.is_null() {
                sys::llama_memory_clear(memory, false);
            }
        }
    }

    /// What was pooled of a text of the last step.
    fn pooled(&self, text: usize) -> Option<Vec<f32>> {
        let sequence = i32::try_from(text).ok()?;
        // SAFETY: the context is valid; there are `width` numbers, valid until the next step.
        unsafe {
            let vector = sys::llama_get_embeddings_seq(self.context, sequence);
            self.copy(vector)
        }
    }

    /// The vector of a row of the last step.
    fn of_row(&self, row: usize) -> Option<Vec<f32>> {
        let row = i32::try_from(row).ok()?;
        // SAFETY: as above.
        unsafe {
            let vector = sys::llama_get_embeddings_ith(self.context, row);
            self.copy(vector)
        }
    }

    /// # Safety
    /// `vector` is null or has [`Facts::width`] numbers.
    unsafe fn copy(&self, vector: *const f32) -> Option<Vec<f32>> {
        // SAFETY: the caller vouches for it.
        (!vector.is_null())
            .then(|| unsafe { std::slice::from_raw_parts(vector, self.facts.width as usize) })
            .map(<[f32]>::to_vec)
    }

    /// Reads rows that fit one ubatch; the vectors of the rows when none are pooled.
    fn read(
        &mut self,
        rows: &[Row],
        abandoned: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<f32>>, DecodeError> {
        self.compute(rows, abandoned)?;
        if self.pooling != Pooling::None {
            return Ok(Vec::new());
        }
        let vectors = (0..rows.len()).map(|row| self.of_row(row));
        vectors.collect::<Option<_>>().ok_or_else(missing)
    }
}

fn missing() -> DecodeError {
    DecodeError::Refused("llama.cpp gave no vector".into())
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: nothing else holds the context; null is allowed.
        unsafe { sys::llama_free(self.context) };
    }
}

impl embed::Encoder for Encoder {
    fn facts(&self) -> Facts {
        self.facts
    }

    fn encode(
        &mut self,
        texts: &[&[Token]],
        abandoned: &dyn Fn() -> bool,
    ) -> Result<Vec<Output>, DecodeError> {
        self.check(texts)?;
        self.clear();
        let rows: Vec<Row> = (0_u32..)
            .zip(texts)
            .flat_map(|(sequence, text)| {
                (0_u32..).zip(*text).map(move |(position, &token)| Row {
                    token,
                    position,
                    sequence,
                    logits: true,
                })
            })
            .collect();
        let mut vectors = Vec::new();
        for part in rows.chunks(self.config.ubatch as usize) {
            vectors.extend(self.read(part, abandoned)?);
        }
        let mut vectors = vectors.into_iter();
        (0..)
            .zip(texts)
            .map(|(at, text)| match self.pooling {
                Pooling::None => Some(Output::Tokens(vectors.by_ref().take(text.len()).collect())),
                _ => self.pooled(at).map(Output::Pooled),
            })
            .collect::<Option<_>>()
            .ok_or_else(missing)
    }

    fn reset(&mut self) -> Result<(), DecodeError> {
        // SAFETY: nothing else holds the context.
        unsafe { sys::llama_free(self.context) };
        self.context = ptr::null_mut();
        self.context = self
            .make_context()
            .map_err(|error| DecodeError::Broken(error.to_string()))?;
        Ok(())
    }
}

impl Weights {
    /// How this model wants a query and a document put together.
    pub fn pairing(&self) -> Pairing {
        let name = c"rerank";
        // SAFETY: model and vocabulary are valid; the template lives as long as the model.
        unsafe {
            let template = sys::llama_model_chat_template(self.as_ptr(), name.as_ptr());
            if !template.is_null() {
                return Pairing::Template(backend::string(template));
            }
            let vocab = self.vocab_ptr();
            let when = |add: bool, token: Token| (add && token >= 0).then_some(token);
            let eos = match sys::llama_vocab_eos(vocab) {
                none if none < 0 => sys::llama_vocab_sep(vocab),
                eos => eos,
            };
            let begin = when(
                sys::llama_vocab_get_add_bos(vocab),
                sys::llama_vocab_bos(vocab),
            );
            let end = when(sys::llama_vocab_get_add_eos(vocab), eos);
            let sep = when(
                sys::llama_vocab_get_add_sep(vocab),
                sys::llama_vocab_sep(vocab),
            );
            Pairing::Tokens {
                begin: begin.into_iter().collect(),
                between: end.into_iter().chain(sep).collect(),
                // BERT's word pieces know no end but the separator, and were trained with one after both texts.
                end: end.or(sep).into_iter().collect(),
            }
        }
    }
}
