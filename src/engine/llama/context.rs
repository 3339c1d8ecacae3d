//! A context: the KV caches, compute buffers and threads that decode batches.

use std::{cell::Cell, ffi::c_void, ptr, sync::Arc};

use llama_cpp_sys_2 as sys;

use super::{
    LoadError, Sampler, Weights, backend,
    batch::Batch,
    guard::{self, Fault},
    scores::scores,
};
use crate::{
    config::{EngineConfig, FlashAttention, KvType},
    engine::{
        Grammar, Sampling, Token,
        model::{DecodeError, Model, Row, SampleError, Sampled, Vocab},
        threads,
    },
};

/// A context over the weights, on the thread that decodes.
pub struct Llama {
    context: *mut sys::llama_context,
    weights: Arc<Weights>,
    config: EngineConfig,
    batch: Batch,
    /// Who is asked during a decode whether anybody still waits; llama.cpp holds its address.
    abandoned: Box<Cell<Option<*const dyn Fn() -> bool>>>,
    candidates: Vec<sys::llama_token_data>,
}

/// llama.cpp keeps each sequence's cells in multiples of this.
const CELLS: u32 = 256;

impl Llama {
    /// Makes the context and runs a warm-up decode. Call on the thread that will decode: llama.cpp's
    /// worker team belongs to it.
    pub fn open(weights: Arc<Weights>, config: &EngineConfig) -> Result<Self, LoadError> {
        let rows = config.batch.max(config.parallel) as usize;
        let mut llama = Self {
            context: ptr::null_mut(),
            batch: Batch::new(rows),
            config: config.clone(),
            abandoned: Box::new(Cell::new(None)),
            candidates: Vec::with_capacity(weights.size() as usize),
            weights,
        };
        llama.context = llama.make_context()?;
        llama.warm_up()?;
        Ok(llama)
    }

    fn make_context(&self) -> Result<*mut sys::llama_context, LoadError> {
        let config = &self.config;
        // SAFETY: returns a plain struct.
        let mut params = unsafe { sys::llama_context_default_params() };
        let cells = config.context.div_ceil(CELLS).saturating_mul(CELLS);
        params.n_ctx = cells.checked_mul(config.parallel).ok_or_else(|| {
            LoadError::Context(
                "engine.context × engine.parallel is more than 4294967295 tokens".into(),
            )
        })?;
        params.n_batch = config.batch.max(config.parallel);
        params.n_ubatch = config.ubatch.min(params.n_batch);
        params.n_seq_max = config.parallel;
        // One row of each sequence asks for logits; room for the rest would be wasted.
        params.n_outputs_max = config.parallel;
        let decode = config.threads.unwrap_or_else(threads::physical_cores);
        params.n_threads = thread_count(decode);
        params.n_threads_batch = thread_count(config.threads_batch.unwrap_or(decode));
        params.type_k = ggml_type(config.kv.k);
        params.type_v = ggml_type(config.kv.v);
        params.flash_attn_type = match config.flash_attention {
            FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
            FlashAttention::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
            FlashAttention::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        };
        // Each sequence has cells of its own: neighbours cost nothing and cannot fill the cache.
        params.kv_unified = false;
        params.abort_callback = Some(on_abort_question);
        params.abort_callback_data = ptr::from_ref(&*self.abandoned).cast_mut().cast();
        backend::take_errors();
        // SAFETY: the weights outlive the context: `self` holds both, and frees the context first.
        unsafe { guard::context(self.weights.as_mut_ptr(), params) }.map_err(|fault| {
            LoadError::Context(match fault {
                Fault::Caught(why) => why,
                Fault::Code(_) => backend::take_errors(),
            })
        })
    }

    /// The first decode touches every weight and makes the worker threads; no request shall wait for that.
    fn warm_up(&mut self) -> Result<(), LoadError> {
        let row = Row {
            token: 0,
            position: 0,
            sequence: 0,
            logits: true,
        };
        self.decode(&[row], &|| false)
            .map_err(|error| LoadError::Context(format!("the warm-up failed: {error}")))?;
        self.clear();
        Ok(())
    }

    fn clear(&mut self) {
        // SAFETY: the context is valid.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.context), true) };
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

    fn decode(&mut self, rows: &[Row], abandoned: &dyn Fn() -> bool) -> Result<(), DecodeError> {
        self.check(rows)?;
        let batch = self.batch.fill(rows);
        // The callback asks through this pointer only while the decode below runs.
        #[expect(
            clippy::transmute_ptr_to_ptr,
            reason = "a cast cannot lengthen the lifetime of a trait object"
        )]
        // SAFETY: only the lifetime is changed, and the cell is emptied before it ends.
        let question: *const (dyn Fn() -> bool + 'static) =
            unsafe { std::mem::transmute(ptr::from_ref(abandoned)) };
        self.abandoned.set(Some(question));
        // SAFETY: the context is valid and ours; `check` holds the batch to its limits.
        let outcome = unsafe { guard::decode(self.context, batch) };
        self.abandoned.set(None);
        outcome.map_err(|fault| match fault {
            Fault::Code(1) => DecodeError::Full,
            Fault::Code(2) => DecodeError::Abandoned,
            Fault::Code(-1) => DecodeError::Refused("llama.cpp refused the batch".into()),
            Fault::Code(code) => DecodeError::Broken(format!("llama_decode returned {code}")),
            Fault::Caught(why) => DecodeError::Broken(why),
        })
    }

    fn truncate(&mut self, sequence: u32, from: u32) -> bool {
        let (Ok(sequence), Ok(from)) = (i32::try_from(sequence), i32::try_from(from)) else {
            return false;
        };
        // SAFETY: the context is valid and `sequence` is one of its own (`Slot` numbers them).
        unsafe {
            let memory = sys::llama_get_memory(self.context);
            // Recurrent states cannot be cut at any place: then the whole sequence goes.
            sys::llama_memory_seq_rm(memory, sequence, from, -1)
                || !sys::llama_memory_seq_rm(memory, sequence, -1, -1)
        }
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
        let logits = self.logits(row).ok_or(SampleError::NotFinite)?;
        let chosen = sampler.choose(logits, &mut candidates);
        let score = |token| logprobs.map(|top| scores(logits, token, top));
        let outcome = chosen.map(|token| Sampled {
            token,
            scores: score(token),
        });
        self.candidates = candidates;
        outcome
    }
}

impl Llama {
    /// What llama.cpp would assert on. Bad tokens, positions and gaps it refuses itself.
    fn check(&self, rows: &[Row]) -> Result<(), DecodeError> {
        let refuse = |why: &str| Err(DecodeError::Refused(why.into()));
        if rows.is_empty() || rows.len() > self.batch.room {
            return refuse("the batch has no rows, or too many");
        }
        if rows.iter().filter(|row| row.logits).count() > self.config.parallel as usize {
            return refuse("more rows ask for logits than there are sequences");
        }
        if rows
            .iter()
            .any(|row| row.sequence >= self.config.parallel || row.position >= self.config.context)
        {
            return refuse("a row lies outside the context");
        }
        Ok(())
    }
}

extern "C" fn on_abort_question(cell: *mut c_void) -> bool {
    // SAFETY: `make_context` passes the address of the boxed cell, which lives as long as the context;
    // what it holds lives until the decode that set it returns, on whose thread this is called.
    unsafe {
        let cell = &*cell.cast::<Cell<Option<*const dyn Fn() -> bool>>>();
        cell.get().is_some_and(|abandoned| (*abandoned)())
    }
}

/// llama.cpp crashes on absurd counts.
fn thread_count(threads: u32) -> i32 {
    i32::try_from(threads.clamp(1, 512)).unwrap_or(1)
}

fn ggml_type(kv: KvType) -> sys::ggml_type {
    match kv {
        KvType::F32 => sys::GGML_TYPE_F32,
        KvType::F16 => sys::GGML_TYPE_F16,
        KvType::Bf16 => sys::GGML_TYPE_BF16,
        KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
        KvType::Q5_1 => sys::GGML_TYPE_Q5_1,
        KvType::Q5_0 => sys::GGML_TYPE_Q5_0,
        KvType::Q4_1 => sys::GGML_TYPE_Q4_1,
        KvType::Q4_0 => sys::GGML_TYPE_Q4_0,
    }
}
