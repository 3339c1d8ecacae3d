//! A run as the body of a response: everything there is in one write, a sign of life after silence.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Bytes;
use futures_util::Stream;
use tokio::time::{Instant, Sleep, sleep};

use super::{Progress, Run, Wording};

/// A chunk of one token fits.
const FRAME_BYTES: usize = 512;
/// A slow reader gets what piled up in portions of about this size.
const WRITE_BYTES: usize = 16 << 10;

pub(super) struct Frames<W> {
    /// `None`: all has been said.
    run: Option<Run<W>>,
    out: Vec<u8>,
    keep_alive: Duration,
    alarm: Pin<Box<Sleep>>,
    wrote: Instant,
}

impl<W: Wording> Frames<W> {
    /// `out`: what was worded already.
    pub(super) fn new(run: Option<Run<W>>, out: Vec<u8>, keep_alive: Duration) -> Self {
        Self {
            run,
            out,
            keep_alive,
            alarm: Box::pin(sleep(keep_alive)),
            wrote: Instant::now(),
        }
    }

    /// Words all that is there.
    fn gather(&mut self, cx: &mut Context<'_>) {
        while self.out.len() < WRITE_BYTES
            && let Some(run) = &mut self.run
        {
            match run.poll_advance(cx, &mut self.out) {
                Poll::Ready(Ok(Progress::Going)) => {}
                Poll::Ready(Ok(Progress::Over)) => self.run = None,
                Poll::Ready(Err(error)) => {
                    run.wording.broken(&error, &mut self.out);
                    self.run = None;
                }
                Poll::Pending => return,
            }
        }
    }

    fn write(&mut self, bytes: Bytes) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.wrote = Instant::now();
        Poll::Ready(Some(Ok(bytes)))
    }
}

impl<W: Wording> Stream for Frames<W> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.gather(cx);
        if !this.out.is_empty() {
            let bytes = std::mem::replace(&mut this.out, Vec::with_capacity(FRAME_BYTES));
            return this.write(bytes.into());
        }
        if this.run.is_none() {
            return Poll::Ready(None);
        }
        // The alarm is set anew when it rings and not with every token: that is a lock saved.
        loop {
            ready!(this.alarm.as_mut().poll(cx));
            if this.wrote.elapsed() >= this.keep_alive {
                this.alarm.as_mut().reset(Instant::now() + this.keep_alive);
                return this.write(Bytes::from_static(W::SIGN_OF_LIFE));
            }
            this.alarm.as_mut().reset(this.wrote + this.keep_alive);
        }
    }
}
