//! The Nickel interpreter over texts in memory, with its errors drawn.

use std::fmt::Write as _;

use nickel_lang_core::{
    cache::{CacheHub, IN_MEMORY_SOURCE_PATH_PREFIX, InputFormat, SourcePath},
    error::{
        Diagnostic, Error, EvalErrorKind, IntoDiagnostics, Label, LabelStyle, NullReporter,
        report::{ColorOpt, report_as_str},
    },
    eval::{VirtualMachine, VmContext, cache::CacheImpl},
    files::{FileId, Files},
    serialize::{self, ExportFormat},
};

/// How a text is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Nickel,
    Json,
}

impl Language {
    fn tag(self) -> &'static str {
        match self {
            Self::Nickel => "'Nickel",
            Self::Json => "'Json",
        }
    }
}

pub(super) struct Nickel {
    vm: VmContext<CacheHub, CacheImpl>,
}

/// Why an expression has no value.
pub(super) struct Failure {
    /// Nickel's drawing: the message, the file, the line and the token.
    pub(super) plain: String,
    pub(super) coloured: String,
    /// What the contract that was broken says about it.
    pub(super) message: Option<String>,
}

impl Nickel {
    pub(super) fn new() -> Self {
        Self {
            vm: VmContext::new(CacheHub::new(), std::io::sink(), NullReporter {}),
        }
    }

    /// Makes `text` known under `name` (shown in errors; its folder is where imports of `text` begin)
    /// and returns the expression that stands for it.
    pub(super) fn add(&mut self, name: &str, language: Language, text: &str) -> String {
        let format = match language {
            Language::Nickel => InputFormat::Nickel,
            Language::Json => InputFormat::Json,
        };
        self.vm
            .import_resolver
            .sources
            .add_string(SourcePath::Path(name.into(), format), text.to_owned());
        let path = nickel_string(&format!("{IN_MEMORY_SOURCE_PATH_PREFIX}{name}"));
        format!("(import {path} as {})", language.tag())
    }

    /// The value of an expression, as JSON.
    pub(super) fn json(&mut self, expression: &str) -> Result<String, Failure> {
        let main = self.vm.import_resolver.sources.add_string(
            SourcePath::Path("<configuration>".into(), InputFormat::Nickel),
            expression.to_owned(),
        );
        self.vm
            .prepare_eval(main)
            .and_then(|term| Ok(VirtualMachine::new(&mut self.vm).eval_full_for_export(term)?))
            .and_then(|value| {
                serialize::to_string(ExportFormat::Json, &value)
                    .map_err(|error| Error::export_error(self.vm.pos_table.clone(), error))
            })
            .map_err(|error| draw(self.vm.import_resolver.sources.files(), &error))
    }
}

/// Draws an error over the texts it points into.
pub(super) fn draw(files: &Files, error: &Error) -> Failure {
    let draw = |colour| report_as_str(&mut files.clone(), Drawn(error.clone()), colour);
    Failure {
        plain: draw(ColorOpt::Never),
        coloured: draw(ColorOpt::Always),
        message: message(error),
    }
}

/// An error without the places that nobody can edit: texts of this program, whose names begin with `<`.
struct Drawn(Error);

impl IntoDiagnostics for Drawn {
    fn into_diagnostics(self, files: &mut Files) -> Vec<Diagnostic<FileId>> {
        // A refusal says enough without a place; a defect of our own texts does not.
        let refusal = message(&self.0).is_some();
        let mut diagnostics = self.0.into_diagnostics(files);
        for diagnostic in &mut diagnostics {
            let ours = |label: &Label<FileId>| {
                files.name(label.file_id).to_string_lossy().starts_with('<')
            };
            if !refusal && diagnostic.labels.iter().all(ours) {
                continue;
            }
            diagnostic.labels.retain(|label| !ours(label));
            if let Some(first) = diagnostic.labels.first_mut() {
                first.style = LabelStyle::Primary;
            }
        }
        diagnostics
    }
}

fn message(error: &Error) -> Option<String> {
    let Error::EvalError(error) = error else {
        return None;
    };
    let EvalErrorKind::BlameError { label, .. } = &error.error else {
        return None;
    };
    label.diagnostics.last()?.message.clone()
}

/// Writes `text` as a Nickel string.
pub fn nickel_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            // "%{" would begin an interpolation.
            '{' if quoted.ends_with('%') => quoted.push_str("\\u{7b}"),
            letter if letter.is_control() => {
                let _ = write!(quoted, "\\u{{{:x}}}", u32::from(letter));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}
