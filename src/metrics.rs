//! What is measured: counted and timed while requests pass, and read from engine, process and GPUs when somebody asks.
//!
//! Names are a contract with dashboards: `docs/observability.md` lists them, and a test compares.

mod engine;
mod families;
mod gpus;
mod llama;
mod process;

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
    core::Collector,
};

use self::{
    families::{Families, Sample},
    llama::Window,
};
use crate::{
    engine::{Usage, Watch},
    gpu::{Gpus, Reading},
};

/// What the text is, to those who ask for it.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A stand-in for what is not known yet, or does not apply.
pub(crate) const NONE: &str = "none";

/// Shorter prompts are computed in one go whose fixed cost says nothing about speed.
const TELLING_PROMPT: u32 = 32;

/// Every instrument of one server. Observing takes no lock and allocates nothing.
pub(crate) struct Metrics {
    model: String,
    registry: Registry,
    requests: IntCounterVec,
    cancelled: IntCounter,
    first_token: Histogram,
    between_tokens: Histogram,
    queue_wait: Histogram,
    prefill_speed: Histogram,
    decode_speed: Histogram,
    duration: Histogram,
    served: OnceLock<Served>,
    window: Mutex<Window>,
}

/// What is there once the model is loaded. It outlives the service that requests hold, so that a drain can be watched.
pub(crate) struct Served {
    pub(crate) fingerprint: String,
    /// Version of llama.cpp.
    pub(crate) engine: String,
    pub(crate) watch: Watch,
    /// Tokens that all sequences together can hold; `None`: this kind of model keeps none.
    pub(crate) capacity_tokens: Option<u64>,
    pub(crate) gpus: Gpus,
}

/// What can be seen only now.
pub(crate) struct Sight {
    pub(crate) stage: &'static str,
    /// 0 to 1.
    pub(crate) loaded: f64,
    /// `None`: the driver does not answer.
    pub(crate) gpus: Option<Vec<Reading>>,
}

impl Metrics {
    /// `model`: its name, by which every request is labelled.
    pub(crate) fn new(model: &str) -> Self {
        let registry = Registry::new();
        let metrics = Self {
            model: model.to_owned(),
            requests: made(IntCounterVec::new(
                Opts::new(
                    "llm_server_requests_total",
                    "Requests by how they ended, of every route.",
                ),
                &["route", "key", "model", "outcome"],
            )),
            cancelled: made(IntCounter::new(
                "llm_server_requests_cancelled_total",
                "Requests whose client went away before the end of the answer.",
            )),
            first_token: histogram(
                "llm_server_time_to_first_token_seconds",
                "From a request's arrival to its first text.",
                &[
                    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
                    300.0,
                ],
            ),
            between_tokens: histogram(
                "llm_server_inter_token_seconds",
                "Between two pieces of one answer's text, each of one token or several that came at once.",
                &[
                    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0,
                    2.5, 10.0,
                ],
            ),
            queue_wait: histogram(
                "llm_server_queue_wait_seconds",
                "From submission to a free sequence, or until the wait was given up.",
                &[
                    0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
                    300.0, 600.0,
                ],
            ),
            prefill_speed: histogram(
                "llm_server_prefill_tokens_per_second",
                "Speed at which one prompt was computed, if at least 32 of its tokens were not in the cache.",
                &[
                    10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 2.5e4, 5e4,
                ],
            ),
            decode_speed: histogram(
                "llm_server_decode_tokens_per_second",
                "Speed at which one answer was generated after its first token.",
                &[
                    1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 75.0, 100.0, 150.0, 200.0,
                    300.0, 500.0, 1e3,
                ],
            ),
            duration: histogram(
                "llm_server_request_duration_seconds",
                "From arrival to the last byte, of requests that reached the engine.",
                &[
                    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
                    1.8e3, 3.6e3,
                ],
            ),
            served: OnceLock::new(),
            window: Mutex::default(),
            registry,
        };
        let instruments: [Box<dyn Collector>; 8] = [
            Box::new(metrics.requests.clone()),
            Box::new(metrics.cancelled.clone()),
            Box::new(metrics.first_token.clone()),
            Box::new(metrics.between_tokens.clone()),
            Box::new(metrics.queue_wait.clone()),
            Box::new(metrics.prefill_speed.clone()),
            Box::new(metrics.decode_speed.clone()),
            Box::new(metrics.duration.clone()),
        ];
        for instrument in instruments {
            made(metrics.registry.register(instrument));
        }
        metrics
    }

    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// A request is over. `key`: a configured name or [`NONE`]; `outcome`: one of a few words.
    pub(crate) fn ended(&self, route: &str, key: &str, outcome: &str) {
        let labels = [route, key, &self.model, outcome];
        self.requests.with_label_values(&labels).inc();
    }

    /// Its client went away.
    pub(crate) fn cancelled(&self) {
        self.cancelled.inc();
    }

    /// A request that reached the engine took so long.
    pub(crate) fn lasted(&self, duration: Duration) {
        self.duration.observe(duration.as_secs_f64());
    }

    pub(crate) fn waited(&self, in_queue: Duration) {
        self.queue_wait.observe(in_queue.as_secs_f64());
    }

    pub(crate) fn first_text(&self, after: Duration) {
        self.first_token.observe(after.as_secs_f64());
    }

    pub(crate) fn more_text(&self, after: Duration) {
        self.between_tokens.observe(after.as_secs_f64());
    }

    /// One prompt was computed in this time.
    pub(crate) fn prefilled(&self, usage: &Usage, took: Duration) {
        let computed = usage.prompt_tokens.saturating_sub(usage.cached_tokens);
        if computed >= TELLING_PROMPT && !took.is_zero() {
            self.prefill_speed
                .observe(f64::from(computed) / took.as_secs_f64());
        }
    }

    /// One answer was generated, in this time from its first token on.
    pub(crate) fn decoded(&self, usage: &Usage, took: Duration) {
        let later = usage.completion_tokens.saturating_sub(1);
        if later > 0 && !took.is_zero() {
            self.decode_speed
                .observe(f64::from(later) / took.as_secs_f64());
        }
    }

    /// The model is loaded; only the first call counts.
    pub(crate) fn serve(&self, served: impl FnOnce() -> Served) {
        self.served.get_or_init(served);
    }

    pub(crate) fn served(&self) -> Option<&Served> {
        self.served.get()
    }

    /// Everything, in the text format of Prometheus.
    pub(crate) fn text(&self, sight: &Sight) -> String {
        let mut families = Families::default();
        self.add_build(&mut families);
        let stages = ["loading", "ready", "draining", "failed"];
        families.gauge(
            "llm_server_stage",
            "1 for the stage that the server is in.",
            stages.map(|stage| {
                Sample::of(f64::from(u8::from(stage == sight.stage))).with("stage", stage)
            }),
        );
        families.gauge(
            "llm_server_load_progress_ratio",
            "How much of the model is loaded.",
            [Sample::of(sight.loaded)],
        );
        process::add(&mut families);
        if let Some(served) = self.served() {
            engine::add(&mut families, served);
            gpus::add(&mut families, sight.gpus.as_deref());
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            llama::add(&mut families, served, &mut window);
        }
        let mut all = self.registry.gather();
        all.extend(families.into_inner());
        // Fails only for a family that is empty or has no name.
        TextEncoder::new()
            .encode_to_string(&all)
            .unwrap_or_else(|error| format!("# {error}\n"))
    }

    fn add_build(&self, families: &mut Families) {
        let served = self.served();
        let fingerprint = served.map_or(NONE, |served| &served.fingerprint);
        let engine = served.map_or(NONE, |served| &served.engine);
        families.gauge(
            "llm_server_build_info",
            "1, with what is served: version of the server, system fingerprint, model and version of llama.cpp.",
            [Sample::of(1.0)
                .with("version", env!("CARGO_PKG_VERSION"))
                .with("fingerprint", fingerprint)
                .with("model", &self.model)
                .with("engine", engine)],
        );
    }
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> Histogram {
    made(Histogram::with_opts(
        HistogramOpts::new(name, help).buckets(buckets.to_vec()),
    ))
}

/// Names, labels and buckets are written above: what is wrong with them shows in the first test.
fn made<T>(instrument: prometheus::Result<T>) -> T {
    instrument.unwrap_or_else(|error| panic!("a metric is defined wrongly: {error}"))
}

#[cfg(test)]
mod tests;
