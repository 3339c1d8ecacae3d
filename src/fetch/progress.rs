//! How a download shows itself: a bar on a terminal, a line now and then elsewhere.

use std::{
    cell::RefCell,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

const BAR: &str = "{prefix}  {wide_bar} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";

/// A line at least this often, even when little moves.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A line whenever another such part of the whole is done.
const LINE_EVERY_PERCENT: u64 = 10;

/// Where progress goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// A bar on standard error.
    Bar,
    /// Plain lines on standard error.
    Lines,
    Nothing,
}

impl Show {
    /// A bar if standard error is a terminal.
    pub fn for_stderr() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Bar
        } else {
            Self::Lines
        }
    }
}

/// The progress of one file.
pub(super) struct Progress {
    name: String,
    form: Form,
}

enum Form {
    Bar(ProgressBar),
    Lines(RefCell<Lines>),
    Nothing,
}

impl Progress {
    /// `total` in bytes.
    pub(super) fn new(show: Show, name: &str, total: u64) -> Self {
        let form = match show {
            Show::Bar => Form::Bar(bar(name, total)),
            Show::Lines => Form::Lines(RefCell::new(Lines::new(name, total, Instant::now()))),
            Show::Nothing => Form::Nothing,
        };
        Self {
            name: name.to_owned(),
            form,
        }
    }

    /// The first `bytes` were there before: they do not count for the speed.
    pub(super) fn begin_at(&self, bytes: u64) {
        match &self.form {
            Form::Bar(bar) => {
                bar.set_position(bytes);
                bar.reset_eta();
            }
            Form::Lines(lines) => lines.borrow_mut().begin_at(bytes, Instant::now()),
            Form::Nothing => {}
        }
        self.note(&format!("going on after {}", megabytes(bytes)));
    }

    pub(super) fn at(&self, bytes: u64) {
        match &self.form {
            Form::Bar(bar) => bar.set_position(bytes),
            Form::Lines(lines) => {
                if let Some(line) = lines.borrow_mut().at(bytes, Instant::now()) {
                    eprintln!("{line}");
                }
            }
            Form::Nothing => {}
        }
    }

    pub(super) fn note(&self, text: &str) {
        let line = format!("{}: {text}", self.name);
        match &self.form {
            Form::Bar(bar) => bar.suspend(|| eprintln!("{line}")),
            Form::Lines(_) => eprintln!("{line}"),
            Form::Nothing => {}
        }
    }

    pub(super) fn done(&self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // An error message must not be written into a bar.
        self.done();
    }
}

fn bar(name: &str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
        .with_prefix(name.to_owned())
        .with_style(style.progress_chars("━╸─"))
}

/// Decides when a line is due and what it says.
struct Lines {
    name: String,
    total: u64,
    begin: (u64, Instant),
    last: (u64, Instant),
}

impl Lines {
    fn new(name: &str, total: u64, now: Instant) -> Self {
        Self {
            name: name.to_owned(),
            total,
            begin: (0, now),
            last: (0, now),
        }
    }

    fn begin_at(&mut self, bytes: u64, now: Instant) {
        self.begin = (bytes, now);
        self.last = (bytes, now);
    }

    fn at(&mut self, bytes: u64, now: Instant) -> Option<String> {
        let step = |bytes: u64| self.percent(bytes) / LINE_EVERY_PERCENT;
        let due = step(bytes) > step(self.last.0) || now - self.last.1 >= LINE_EVERY;
        if !due {
            return None;
        }
        self.last = (bytes, now);
        let seconds = (now - self.begin.1).as_secs_f64().max(1e-3);
        let speed = bytes.saturating_sub(self.begin.0) as f64 / seconds;
        let left = self.total.saturating_sub(bytes);
        let left = if left == 0 {
            "done".to_owned()
        } else if speed > 0.0 {
            let left = Duration::try_from_secs_f64(left as f64 / speed).unwrap_or(Duration::MAX);
            format!("{} left", HumanDuration(left))
        } else {
            "stalled".to_owned()
        };
        Some(format!(
            "{}: {} of {} ({} %), {:.1} MB/s, {left}",
            self.name,
            megabytes(bytes),
            megabytes(self.total),
            self.percent(bytes),
            speed / 1e6,
        ))
    }

    fn percent(&self, bytes: u64) -> u64 {
        bytes.saturating_mul(100) / self.total.max(1)
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_at_every_tenth_and_after_five_silent_seconds() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut lines = Lines::new("tiny", 100_000_000, start);
        let steps = [
            (5_000_000, 500),
            (10_000_000, 1_000),
            (19_999_999, 2_000),
            (20_000_000, 4_000),
            (20_000_001, 8_999),
            (20_000_002, 9_000),
            (100_000_000, 10_000),
        ];
        let said: Vec<_> = steps
            .into_iter()
            .filter_map(|(bytes, ms)| lines.at(bytes, at(ms)))
            .collect();
        insta::assert_snapshot!(said.join("\n"), @r"
        tiny: 10.0 MB of 100.0 MB (10 %), 10.0 MB/s, 9 seconds left
        tiny: 20.0 MB of 100.0 MB (20 %), 5.0 MB/s, 16 seconds left
        tiny: 20.0 MB of 100.0 MB (20 %), 2.2 MB/s, 36 seconds left
        tiny: 100.0 MB of 100.0 MB (100 %), 10.0 MB/s, done
        ");
    }

    #[test]
    fn bytes_that_were_there_before_do_not_count_for_the_speed() {
        let start = Instant::now();
        let mut lines = Lines::new("tiny", 100_000_000, start);
        lines.begin_at(50_000_000, start);
        let said = lines.at(60_000_000, start + Duration::from_secs(2));
        assert_eq!(
            said.as_deref(),
            Some("tiny: 60.0 MB of 100.0 MB (60 %), 5.0 MB/s, 8 seconds left")
        );
    }
}
