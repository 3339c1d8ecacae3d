//! Follows the jobs of one request and answers with what they say, whole or as a stream.

mod frames;
mod log;
#[cfg(test)]
pub(super) mod spoken;

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    Extension,
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use tokio::{sync::mpsc::UnboundedReceiver, time::timeout};
use tokio_util::sync::WaitForCancellationFutureOwned;

use self::{frames::Frames, log::Log};
use super::{Service, body::json, error::ApiError, record::Record, tape::Chosen};
use crate::engine::{Event, Finished, Job, Piece, Scored, Usage};

/// How an endpoint puts answers into bytes. For a stream each call appends events; a whole
/// answer is remembered and appended by `close`.
pub(super) trait Wording: Send + Unpin + 'static {
    /// Of a stream.
    const CONTENT_TYPE: &'static str = "text/event-stream";
    /// What a stream says after silence, so that nobody takes it for dead.
    const SIGN_OF_LIFE: &'static [u8] = b": ping\n\n";

    /// Before anything else of this choice. `so_far`: token counts of all choices together.
    fn open(&mut self, choice: usize, so_far: Usage, out: &mut Vec<u8>);
    /// The prompt's tokens after its first with their log-probabilities, where they are wanted: before `open`.
    fn prompt(&mut self, _choice: usize, _scored: Vec<Scored>) {}
    fn text(&mut self, choice: usize, piece: Piece, so_far: Usage, out: &mut Vec<u8>);
    fn end(&mut self, choice: usize, finished: &Finished, so_far: Usage, out: &mut Vec<u8>);
    /// After the last choice.
    fn close(&mut self, total: Usage, out: &mut Vec<u8>);
    /// The last words of a stream that broke. Clients raise them as an error; no `[DONE]` follows.
    fn broken(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: ");
        json(out, &error.body());
        out.extend_from_slice(b"\n\n");
    }
}

/// The jobs of one request, on their way. Dropping it cancels those that still run.
pub(super) struct Run<W> {
    choices: Vec<Choice>,
    /// Choices in a row that share one prompt.
    copies: usize,
    wording: W,
    buffer: Vec<Event>,
    chosen: Chosen,
    log: Log,
    /// Ready when the engine thread hangs and no event will come any more.
    lost: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Keeps the engine while this request runs, also when the server begins to drain.
    _service: Arc<Service>,
}

struct Choice {
    events: UnboundedReceiver<Event>,
    stage: ChoiceStage,
    usage: Usage,
    /// When it said something.
    spoke: Option<Instant>,
}

#[derive(PartialEq, Eq)]
enum ChoiceStage {
    /// It waits for a sequence, and may still be refused one.
    Queued,
    /// It runs; nothing was said about it yet.
    Silent,
    Open,
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Going,
    Over,
}

/// Most events taken from one job before the others get their turn.
const BURST: usize = 64;

impl<W: Wording> Run<W> {
    /// Queues the jobs: all of them or none. `copies` jobs in a row share a prompt, and `param`
    /// is the field that prompts came from.
    pub(super) fn submit(
        service: Arc<Service>,
        jobs: Vec<Job>,
        copies: usize,
        param: &'static str,
        wording: W,
        record: Arc<Record>,
    ) -> Result<Self, ApiError> {
        let (engine, _) = service.work.generator()?;
        let lost = Box::pin(engine.lost());
        let mut log = Log::new(record, &service.identity.model);
        let mut choices = Vec::with_capacity(jobs.len());
        // The first one's: those of the others follow from it.
        let chosen = Chosen {
            seed: jobs.first().map_or(0, |job| job.sampling.seed),
            lora: jobs
                .first()
                .map_or_else(Vec::new, |job| service.identity.loras.told(&job.adapters)),
        };
        for job in jobs {
            let usage = Usage {
                prompt_tokens: u32::try_from(job.prompt.len()).unwrap_or(u32::MAX),
                ..Usage::default()
            };
            let submitted = engine.submit(job);
            let events =
                submitted.map_err(|refused| log.failed(ApiError::refused(&refused, param)))?;
            log.accepted();
            choices.push(Choice {
                events,
                stage: ChoiceStage::Queued,
                usage,
                spoke: None,
            });
        }
        Ok(Self {
            choices,
            copies,
            wording,
            buffer: Vec::with_capacity(BURST),
            chosen,
            log,
            lost,
            _service: service,
        })
    }

    /// Waits for the end and answers with everything at once.
    pub(super) async fn whole(mut self) -> Result<Response, ApiError> {
        let mut out = Vec::new();
        while let Progress::Going = poll_fn(|cx| self.poll_advance(cx, &mut out)).await? {}
        let json = HeaderValue::from_static("application/json");
        Ok((Extension(self.chosen), [(header::CONTENT_TYPE, json)], out).into_response())
    }

    /// Answers with events as they come. What fails before the first of them is a plain error with
    /// its own status: while all jobs wait for a sequence, which `limits.queue_wait` bounds, and then
    /// unless the prompt takes so long that the client must hear something.
    pub(super) async fn stream(mut self, keep_alive: Duration) -> Result<Response, ApiError> {
        let chosen = self.chosen.clone();
        let mut out = Vec::new();
        let mut progress = Progress::Going;
        while self.is_queued() {
            progress = poll_fn(|cx| self.poll_advance(cx, &mut out)).await?;
        }
        let first = async {
            while progress == Progress::Going && out.is_empty() {
                progress = poll_fn(|cx| self.poll_advance(cx, &mut out)).await?;
            }
            Ok(progress)
        };
        let run = match timeout(keep_alive, first).await {
            Ok(Ok(Progress::Over)) => None,
            Ok(Ok(Progress::Going)) | Err(_) => Some(self),
            Ok(Err(error)) => return Err(error),
        };
        let body = Body::from_stream(Frames::new(run, out, keep_alive));
        let headers = [
            (header::CONTENT_TYPE.as_str(), W::CONTENT_TYPE),
            (header::CACHE_CONTROL.as_str(), "no-cache"),
            // nginx would collect events before passing them on.
            ("x-accel-buffering", "no"),
        ];
        Ok((Extension(chosen), headers, body).into_response())
    }

    /// Takes what the jobs have said and words it. Ready when something was taken.
    fn poll_advance(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> Poll<Result<Progress, ApiError>> {
        let mut heard = false;
        let mut buffer = std::mem::take(&mut self.buffer);
        for index in 0..self.choices.len() {
            let choice = &mut self.choices[index];
            if choice.stage == ChoiceStage::Ended {
                continue;
            }
            match choice.events.poll_recv_many(cx, &mut buffer, BURST) {
                Poll::Pending => continue,
                // Every job ends with an event; silence means that the engine is gone.
                Poll::Ready(0) => return Poll::Ready(Err(self.log.failed(ApiError::EngineDead))),
                Poll::Ready(_) => heard = true,
            }
            for event in buffer.drain(..) {
                if let Err(error) = self.take(index, event, out) {
                    return Poll::Ready(Err(self.log.failed(error)));
                }
            }
        }
        self.buffer = buffer;
        let ended = |choice: &Choice| choice.stage == ChoiceStage::Ended;
        if self.choices.iter().all(ended) {
            let total = self.usage();
            self.log.used(total);
            self.wording.close(total, out);
            return Poll::Ready(Ok(Progress::Over));
        }
        if heard {
            return Poll::Ready(Ok(Progress::Going));
        }
        let lost = self.lost.as_mut().poll(cx);
        lost.map(|()| Err(self.log.failed(ApiError::EngineDead)))
    }

    fn take(&mut self, index: usize, event: Event, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let choice = &mut self.choices[index];
        match event {
            Event::Started {
                cached_tokens,
                queued,
            } => {
                self.log.started(queued);
                choice.stage = ChoiceStage::Silent;
                choice.usage.cached_tokens = cached_tokens;
                self.log.used(self.usage());
            }
            Event::Prompt(scored) => self.wording.prompt(index, scored),
            Event::Text(piece) => {
                choice.usage.completion_tokens = piece.completion_tokens;
                let now = Instant::now();
                let before = choice.spoke.replace(now);
                self.open(index, out);
                let so_far = self.usage();
                self.log.text(so_far, before, now);
                self.wording.text(index, piece, so_far, out);
            }
            Event::End(Ok(finished)) => {
                choice.usage = finished.usage;
                self.open(index, out);
                self.choices[index].stage = ChoiceStage::Ended;
                let so_far = self.usage();
                self.wording.end(index, &finished, so_far, out);
                self.log.finished(&finished);
            }
            Event::End(Err(failed)) => return Err(failed.into()),
        }
        Ok(())
    }

    fn is_queued(&self) -> bool {
        let queued = |choice: &Choice| choice.stage == ChoiceStage::Queued;
        self.choices.iter().all(queued)
    }

    fn open(&mut self, index: usize, out: &mut Vec<u8>) {
        let stage = &mut self.choices[index].stage;
        if matches!(stage, ChoiceStage::Queued | ChoiceStage::Silent) {
            *stage = ChoiceStage::Open;
            let so_far = self.usage();
            self.wording.open(index, so_far, out);
        }
    }

    /// A prompt counts once, however many answers it gets.
    fn usage(&self) -> Usage {
        let mut total = Usage::default();
        for (index, Choice { usage, .. }) in self.choices.iter().enumerate() {
            total.completion_tokens += usage.completion_tokens;
            total.accepted_tokens += usage.accepted_tokens;
            total.rejected_tokens += usage.rejected_tokens;
            if index % self.copies == 0 {
                total.prompt_tokens += usage.prompt_tokens;
                total.cached_tokens += usage.cached_tokens;
            }
        }
        total
    }
}
