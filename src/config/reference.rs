//! The option reference, read off the schema.

use std::{fmt::Write as _, io};

use nickel_lang_core::{
    eval::{
        cache::CacheImpl,
        value::{Container, NickelValue, ValueContentRef},
    },
    program::{Program, ProgramBuilder},
    term::{Term, record::RecordData},
};
use serde::Serialize;

use super::{
    ConfigError,
    load::SCHEMA,
    nickel::{self, Language, Nickel},
};

/// One option of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Dotted path, such as `engine.kv.v`.
    pub name: String,
    /// What is accepted, in words.
    #[serde(rename = "type")]
    pub kind: String,
    /// As Nickel writes it; `None`: the option must be given.
    pub default: Option<String>,
    pub doc: String,
}

/// All options, in the order of the schema.
pub fn reference() -> Result<Vec<Entry>, ConfigError> {
    let mut entries = Vec::new();
    walk("", &shape()?, &mut entries);

    let mut nickel = Nickel::new();
    let schema = nickel.add("<built-in>schema.ncl", Language::Nickel, SCHEMA);
    for entry in &mut entries {
        entry.kind = accepted(&mut nickel, &schema, &entry.name)?;
    }
    Ok(entries)
}

/// The schema's record of options with its metadata: documentation and defaults.
fn shape() -> Result<NickelValue, ConfigError> {
    let mut program: Program<CacheImpl> = ProgramBuilder::new()
        .add_source_string(format!("({SCHEMA}).Everything"), "schema.ncl")
        .build()
        .map_err(|why| ConfigError::Read {
            path: "schema.ncl".into(),
            why: io::Error::other(why),
        })?;
    let shape = program.eval_record_spine();
    Ok(shape.map_err(|error| nickel::draw(&program.files(), &error))?)
}

fn walk(prefix: &str, value: &NickelValue, entries: &mut Vec<Entry>) {
    let Some(record) = as_record(value) else {
        return;
    };
    for (name, field) in &record.fields {
        let name = format!("{prefix}{name}");
        if let Some(doc) = field.metadata.doc() {
            entries.push(Entry {
                doc: doc.split_whitespace().collect::<Vec<_>>().join(" "),
                default: field
                    .value
                    .as_ref()
                    .map(|value| value.to_string().replace("[  ]", "[]")),
                kind: String::new(),
                name: name.clone(),
            });
        }
        for pending in &field.pending_contracts {
            walk(&format!("{name}."), &pending.contract, entries);
        }
    }
}

fn as_record(value: &NickelValue) -> Option<&RecordData> {
    match value.content_ref() {
        ValueContentRef::Record(Container::Alloc(record)) => Some(record),
        ValueContentRef::Term(Term::RecRecord(data)) => Some(&data.record),
        _ => None,
    }
}

/// Gives the option a value that nothing accepts, and takes the words of the refusal.
fn accepted(nickel: &mut Nickel, schema: &str, name: &str) -> Result<String, ConfigError> {
    let refused = nickel.json(&format!(
        "({{ {name} = fun x => x }} | {schema}.Shape).{name}"
    ));
    let Err(failure) = refused else {
        return Ok("anything".into());
    };
    match failure
        .message
        .as_deref()
        .and_then(|message| message.strip_prefix("expected "))
    {
        Some(words) => Ok(words.to_owned()),
        None => Err(failure.into()),
    }
}

/// The options as a Markdown table.
pub fn markdown(entries: &[Entry]) -> String {
    let mut table =
        String::from("| Name | Type | Default | Meaning |\n| --- | --- | --- | --- |\n");
    for Entry {
        name,
        kind,
        default,
        doc,
    } in entries
    {
        let default = default
            .as_ref()
            .map_or("required".into(), |default| format!("`{default}`"));
        let _ = writeln!(
            table,
            "| `{name}` | {} | {default} | {} |",
            cell(kind),
            cell(doc)
        );
    }
    table
}

/// Text that cannot end its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
