//! Fields of an event on a line for people: a request's sentence says already what most of its fields say.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::{RecordFields, VisitOutput},
    fmt::{
        FormatFields,
        format::{DefaultVisitor, Writer},
    },
};

/// The field that makes an event a request's, and the first after its sentence.
const MARK: &str = "request_id";
/// What of a request's fields is read beside the sentence; the journal keeps all.
const READ: [&str; 3] = ["key", "status", "ttft_us"];

pub(super) struct Lines;

impl<'writer> FormatFields<'writer> for Lines {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut fields_of = Sieve {
            line: DefaultVisitor::new(writer, true),
            request: false,
        };
        fields.record(&mut fields_of);
        fields_of.line.finish()
    }
}

struct Sieve<'a> {
    line: DefaultVisitor<'a>,
    request: bool,
}

impl Visit for Sieve<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = field.name();
        if !self.request || READ.contains(&name) {
            self.line.record_debug(field, value);
        }
        if name == MARK {
            self.request = true;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // The default prints a message without its quotes.
        if field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Text(Arc<Mutex<Vec<u8>>>);

    impl Write for Text {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(during: impl FnOnce()) -> String {
        let text = Text::default();
        let writer = text.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .fmt_fields(Lines)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, during);
        let bytes = text.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_requests_line_is_its_sentence_and_what_that_leaves_out() {
        let line = written(|| {
            let route = "/v1/completions";
            tracing::info!(
                request_id = "req_1",
                key = "alice",
                route,
                status = 200,
                tokens_in = 12,
                ttft_us = Some(1500),
                total_us = 99_000,
                "{route} stop: 12 tokens in, 99 ms",
            );
        });
        let expected = " INFO /v1/completions stop: 12 tokens in, 99 ms \
                        request_id=\"req_1\" key=\"alice\" status=200 ttft_us=1500\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn other_lines_have_all_their_fields() {
        let line = written(|| tracing::info!(route = "x", total_us = 1, "hello"));
        assert_eq!(line, " INFO hello route=\"x\" total_us=1\n");
    }
}
