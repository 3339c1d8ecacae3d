//! `samplers`: which samplers choose, and in which order.

use serde_json::Value;

use crate::{
    api::{error::ApiError, fields::Fields},
    engine::Sampling,
};

/// In the only order there is.
pub(super) const ALL: [&str; 9] = [
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typ_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
];
const INFILL: &str = "infill";

/// Switches off what the field `samplers` does not name, and returns the names that are left.
pub(super) fn choose(
    fields: Fields<'_>,
    sampling: &mut Sampling,
) -> Result<Vec<&'static str>, ApiError> {
    let Some(value) = fields.get("samplers") else {
        return Ok(ALL.to_vec());
    };
    let Some(chosen) = names(value) else {
        let expected = format!("an array of some of {ALL:?} and \"{INFILL}\", in this order");
        return Err(fields.wrong("samplers", expected));
    };
    sampling.infill = chosen.contains(&INFILL);
    for name in ALL.into_iter().filter(|name| !chosen.contains(name)) {
        switch_off(name, sampling);
    }
    Ok(chosen)
}

fn names(value: &Value) -> Option<Vec<&'static str>> {
    let mut known = ALL.into_iter().chain([INFILL]);
    let named = value.as_array()?.iter().map(|name| {
        let name = match name.as_str()? {
            "typ" | "typical" | "typical_p" => "typ_p",
            "temp" => "temperature",
            name => name,
        };
        // What was gone past cannot come again.
        known.find(|known| *known == name)
    });
    named.collect()
}

fn switch_off(name: &str, s: &mut Sampling) {
    match name {
        "penalties" => s.repeat_last_n = 0,
        "dry" => s.dry_multiplier = 0.0,
        "top_n_sigma" => s.top_n_sigma = -1.0,
        "top_k" => s.top_k = 0,
        "typ_p" => s.typical_p = 1.0,
        "top_p" => s.top_p = 1.0,
        "min_p" => s.min_p = 0.0,
        "xtc" => s.xtc_probability = 0.0,
        // The last of ALL. Without it the logits stay as they are.
        _ => (s.temperature, s.dynatemp_range) = (1.0, 0.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn chosen(samplers: Value) -> Option<(Vec<&'static str>, Sampling)> {
        let object = Map::from_iter([("samplers".to_owned(), samplers)]);
        let mut sampling = Sampling::default();
        let names = choose(Fields::new(&object), &mut sampling).ok()?;
        Some((names, sampling))
    }

    #[test]
    fn what_is_not_named_is_off() {
        let (names, sampling) = chosen(json!(["top_k", "top_p", "infill"])).unwrap();
        assert_eq!(names, ["top_k", "top_p", "infill"]);
        let off = Sampling {
            infill: true,
            repeat_last_n: 0,
            min_p: 0.0,
            temperature: 1.0,
            ..Sampling::default()
        };
        assert_eq!(sampling, off);
        assert_eq!(chosen(json!(ALL)).unwrap().1, Sampling::default());
        assert_eq!(chosen(json!(null)).unwrap().0, ALL);
        assert_eq!(chosen(json!([])).unwrap().0, [""; 0]);
    }

    #[test]
    fn another_order_or_an_unknown_name_is_refused() {
        assert!(chosen(json!(["top_p", "top_k"])).is_none());
        assert!(chosen(json!(["top_k", "top_k"])).is_none());
        assert!(chosen(json!(["adaptive_p"])).is_none());
        assert!(chosen(json!("kp")).is_none());
    }
}
