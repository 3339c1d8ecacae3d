//! `options`: how an answer is generated, in Ollama's names.

use serde_json::{Map, Value};

use crate::api::{error::ApiError, fields::Fields};

/// The same in every dialect.
pub(super) const SAME: [&str; 13] = [
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_last_n",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "seed",
];

/// How a model is loaded, which the configuration decides: let pass where it says nothing.
const OF_THE_SERVER: [(&str, &[&str], &str); 12] = [
    ("draft_num_predict", &["0"], "engine.speculate"),
    ("f16_kv", &["true"], "engine.kv"),
    ("logits_all", &["false"], "engine"),
    ("low_vram", &["false"], "engine.placement"),
    ("main_gpu", &["0"], "engine.placement"),
    ("num_batch", &[], "engine.batch"),
    ("num_gpu", &["-1"], "engine.placement"),
    ("num_thread", &["0"], "engine.threads"),
    ("numa", &["false"], "engine.numa"),
    ("use_mlock", &["false"], "engine.load"),
    ("use_mmap", &["true"], "engine.load"),
    ("vocab_only", &["false"], "engine"),
];

/// Known once, gone from Ollama: what they mean by default is what happens.
const GONE: [(&str, &str); 2] = [("penalize_newline", "true"), ("tfs_z", "1.0")];

/// Writes the options into `out` as OpenAI's dialect has them, and returns what of them has no effect.
pub(super) fn translate(
    fields: Fields<'_>,
    context: u32,
    out: &mut Map<String, Value>,
) -> Result<Vec<String>, ApiError> {
    let mut warnings = Vec::new();
    let Some(object) = fields.object("options")? else {
        return Ok(warnings);
    };
    let options = Fields::within(object, "options.");
    for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            same if SAME.contains(&same) => {
                out.insert(name.clone(), value.clone());
            }
            "stop" => {
                out.insert("stop".to_owned(), value.clone());
            }
            "num_predict" => {
                let given = options.integer::<i64>("num_predict", -2..=i64::from(u32::MAX))?;
                // -2 is "until the context is full", which is where -1 ends, too.
                let most = given.unwrap_or(-1).max(-1);
                out.insert("max_completion_tokens".to_owned(), most.into());
            }
            "num_ctx" => check_context(options, context)?,
            "num_keep" => {
                options.integer::<i64>("num_keep", -1..=i64::from(u32::MAX))?;
                warnings.push("options.num_keep: a context that is full is not shifted".to_owned());
            }
            other => warnings.extend(check_other(other, value)?),
        }
    }
    Ok(warnings)
}

fn check_context(options: Fields<'_>, context: u32) -> Result<(), ApiError> {
    let wanted = options.integer::<i64>("num_ctx", 1..=i64::MAX)?;
    if wanted.is_some_and(|wanted| wanted > i64::from(context)) {
        let expected =
            format_args!("at most {context}, the context that is configured (engine.context)");
        return Err(options.wrong("num_ctx", expected));
    }
    Ok(())
}

fn check_other(name: &str, value: &Value) -> Result<Option<String>, ApiError> {
    let given = value.to_string();
    let refused = |why: String| {
        let param = format!("options.{name}");
        let message = format!("{param}: {why}");
        Err(ApiError::invalid(param, message))
    };
    if let Some((_, off, setting)) = OF_THE_SERVER.iter().find(|(known, ..)| *known == name) {
        return if off.contains(&given.as_str()) {
            Ok(None)
        } else {
            refused(format!(
                "set in the server's configuration ({setting}); leave it out"
            ))
        };
    }
    if let Some((_, off)) = GONE.iter().find(|(known, _)| *known == name) {
        let off = given == *off || value.as_f64().is_some_and(|value| off.parse() == Ok(value));
        return if off {
            Ok(None)
        } else {
            refused("this server does not support it; leave it out".to_owned())
        };
    }
    Ok(Some(format!("options.{name}: there is no such option")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn translated(options: Value) -> Result<(Value, Vec<String>), String> {
        let body = Map::from_iter([("options".to_owned(), options)]);
        let mut out = Map::new();
        let warnings = translate(Fields::new(&body), 512, &mut out).map_err(|e| e.to_string())?;
        Ok((out.into(), warnings))
    }

    #[test]
    fn options_are_honoured_under_their_other_names() {
        let options = json!({
            "temperature": 0.5, "seed": 3, "stop": ["a"], "num_predict": -2, "num_ctx": 512, "min_p": null,
            "num_gpu": -1, "num_thread": 0, "use_mmap": true, "tfs_z": 1,
        });
        let expected =
            json!({"temperature": 0.5, "seed": 3, "stop": ["a"], "max_completion_tokens": -1});
        assert_eq!(translated(options), Ok((expected, Vec::new())));
    }

    #[test]
    fn what_has_no_effect_is_told() {
        let (out, warnings) = translated(json!({"num_keep": 4, "warmth": 1})).unwrap();
        assert_eq!(out, json!({}));
        assert_eq!(warnings.len(), 2);
    }

    #[test]
    fn what_the_configuration_decides_is_refused_with_the_setting() {
        let no = |options| translated(options).unwrap_err();
        insta::assert_snapshot!(no(json!({"num_ctx": 513})), @"options.num_ctx: expected at most 512, the context that is configured (engine.context), got 513");
        insta::assert_snapshot!(no(json!({"num_thread": 8})), @"options.num_thread: set in the server's configuration (engine.threads); leave it out");
        insta::assert_snapshot!(no(json!({"tfs_z": 0.5})), @"options.tfs_z: this server does not support it; leave it out");
        insta::assert_snapshot!(no(json!([])), @"options: expected an object, got an array of 0");
    }
}
