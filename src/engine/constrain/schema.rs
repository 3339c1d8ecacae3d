//! JSON schemas: bounded before they are compiled, and where one cannot be enforced, the place in it that is why.

use std::time::{Duration, Instant};

use llguidance::JsonCompileOptions;
use serde_json::{Map, Value};

use super::{Refused, source::Strictness};

/// Levels of nesting, of the schema as JSON.
const MOST_DEPTH: usize = 64;
/// Values in a schema, all levels together.
const MOST_VALUES: usize = 20_000;
/// Properties of one object: the time to compile them grows with their square.
const MOST_PROPERTIES: usize = 2000;
/// Each is compared with each of its neighbours.
const MOST_PATTERN_PROPERTIES: usize = 64;
/// Parts of a schema that are left out before it is given up.
const MOST_RELAXED: usize = 16;
/// How long the place of an error is looked for.
const SEARCH: Duration = Duration::from_millis(500);

/// Parts of what llguidance says of a schema that is sound and asks for more than it can do.
const CANNOT: [&str; 8] = [
    "Unimplemented keys",
    "Unknown format",
    "min/maxProperties only supported",
    "circular references",
    "disjoint",
    "oneOf constraints",
    "look-around",
    "backreferences",
];

/// Whether llguidance takes a schema, and if not, why.
pub(super) type Probe<'a> = dyn Fn(Value) -> Result<(), String> + 'a;

/// A schema that can be enforced.
pub(super) struct Settled {
    pub(super) schema: Value,
    /// What was left out of it.
    pub(super) warnings: Vec<String>,
}

/// Checks a schema, and leaves out what cannot be enforced where that is allowed.
pub(super) fn settle(
    schema: &Value,
    strictness: Strictness,
    probe: &Probe<'_>,
) -> Result<Settled, Refused> {
    check(schema)?;
    let mut schema = schema.clone();
    if !combines(&schema) {
        close(&mut schema);
    }
    let mut warnings = Vec::new();
    loop {
        let ready = with_options(&schema, strictness);
        let Err(why) = probe(ready.clone()) else {
            return Ok(Settled {
                schema: ready,
                warnings,
            });
        };
        let place = locate(&schema, &why, &|part| {
            probe(with_options(part, strictness)).err()
        });
        let able = CANNOT.iter().any(|part| why.contains(part));
        let relax = strictness == Strictness::Relaxed && able && warnings.len() < MOST_RELAXED;
        if !(relax && place.keyword && remove(&mut schema, &place.pointer)) {
            return Err(Refused::Schema {
                pointer: place.pointer,
                why: words(&why),
            });
        }
        warnings.push(format!("#{}: not enforced: {}", place.pointer, words(&why)));
    }
}

/// Lets objects that list their properties have no others, where nothing is said of others: models would make them
/// up without end. As llama.cpp and vLLM have it.
fn close(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match value {
                    // Names of properties are no keywords.
                    Value::Object(named) if BY_NAME.contains(&name.as_str()) => {
                        named.values_mut().for_each(close);
                    }
                    _ if LITERAL.contains(&name.as_str()) => {}
                    _ => close(value),
                }
            }
            let open = |name: &str| fields.contains_key(name);
            let listed = |name: &Value| {
                let name = name.as_str().unwrap_or_default();
                fields["properties"].get(name).is_some()
            };
            let required = fields.get("required").and_then(Value::as_array);
            if fields.get("properties").is_some_and(Value::is_object)
                && !["additionalProperties", "patternProperties", "minProperties"]
                    .into_iter()
                    .any(open)
                && required.is_none_or(|names| names.iter().all(listed))
            {
                fields.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
        }
        _ => {}
    }
}

/// Whether several schemas say something of one object: none of them may forbid what the others allow.
fn combines(schema: &Value) -> bool {
    const IN_PLACE: [&str; 4] = ["allOf", "anyOf", "oneOf", "$ref"];
    let own = schema.as_object().is_some_and(|fields| {
        let in_place = IN_PLACE.iter().filter(|name| fields.contains_key(**name));
        let all = fields.get("allOf").and_then(Value::as_array);
        match in_place.count() {
            0 => false,
            1 => fields.contains_key("properties") || all.is_some_and(|all| all.len() > 1),
            _ => true,
        }
    });
    own || parts(schema).any(|(_, part)| combines(part))
}

/// White space is fixed, as Python writes it: a model cannot pad, and what is between two values is forced.
fn with_options(schema: &Value, strictness: Strictness) -> Value {
    let mut schema = schema.clone();
    let options = JsonCompileOptions {
        item_separator: ", ".to_owned(),
        key_separator: ": ".to_owned(),
        whitespace_flexible: false,
        coerce_one_of: strictness == Strictness::Relaxed,
        ..JsonCompileOptions::default()
    };
    if schema.is_object() {
        options.apply_to(&mut schema);
    }
    schema
}

fn check(schema: &Value) -> Result<(), Refused> {
    let too_large = |why: String| Refused::Schema {
        pointer: String::new(),
        why,
    };
    if !schema.is_object() {
        return Err(too_large("expected an object".to_owned()));
    }
    let (mut values, mut patterns) = (0, 0);
    let mut open = vec![(schema, 0)];
    while let Some((value, depth)) = open.pop() {
        values += 1;
        if depth > MOST_DEPTH {
            return Err(too_large(format!("nested deeper than {MOST_DEPTH} levels")));
        }
        if values > MOST_VALUES {
            return Err(too_large(format!("more than {MOST_VALUES} values")));
        }
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => {
                let named = fields.get("patternProperties").and_then(Value::as_object);
                patterns += named.map_or(0, Map::len);
                if fields.len() > MOST_PROPERTIES {
                    return Err(too_large(format!(
                        "more than {MOST_PROPERTIES} properties in one object"
                    )));
                }
                open.extend(fields.values().map(|field| (field, depth + 1)));
            }
            _ => {}
        }
    }
    if patterns > MOST_PATTERN_PROPERTIES {
        return Err(too_large(format!(
            "more than {MOST_PATTERN_PROPERTIES} patternProperties"
        )));
    }
    Ok(())
}

/// A place in a schema, as a JSON pointer.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    pointer: String,
    /// Whether it is a keyword that is to blame, not a whole part of the schema.
    keyword: bool,
}

/// The smallest part of a schema that is refused for the same reason as the whole, and the keyword in it: llguidance
/// itself tells no places.
fn locate(root: &Value, why: &str, refusal: &dyn Fn(&Value) -> Option<String>) -> Place {
    let began = Instant::now();
    let same = |part: &Value| {
        began.elapsed() < SEARCH
            && refusal(&with_definitions(part, root))
                .is_some_and(|other| first_line(&other) == first_line(why))
    };
    let mut pointer = String::new();
    let mut node = root;
    let mut followed = Vec::new();
    loop {
        let child = parts(node).find(|(_, child)| child.is_object() && same(child));
        if let Some((step, child)) = child {
            pointer.push_str(&step);
            node = child;
            continue;
        }
        let target = node.get("$ref").and_then(Value::as_str);
        let target = target.and_then(|target| target.strip_prefix('#'));
        match target.and_then(|target| Some((target, root.pointer(target)?))) {
            Some((target, part)) if !followed.contains(&target) && same(part) => {
                followed.push(target);
                target.clone_into(&mut pointer);
                node = part;
            }
            _ => break,
        }
    }
    let keyword = node.as_object().and_then(|fields| {
        // Without a type nearly everything passes: it is the last to blame.
        let (types, others): (Vec<_>, Vec<_>) = fields.keys().partition(|name| *name == "type");
        others.into_iter().chain(types).find(|name| {
            let mut without = fields.clone();
            without.shift_remove(name.as_str());
            !DEFINITIONS.contains(&name.as_str()) && !same(&Value::Object(without))
        })
    });
    if let Some(name) = keyword {
        pointer.push('/');
        pointer.push_str(&escape(name));
    }
    Place {
        keyword: keyword.is_some(),
        pointer,
    }
}

const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];
/// Keywords whose fields are schemas by name.
const BY_NAME: [&str; 5] = [
    "properties",
    "patternProperties",
    "$defs",
    "definitions",
    "dependentSchemas",
];
/// Keywords whose values are no schemas.
const LITERAL: [&str; 4] = ["enum", "const", "default", "examples"];

/// The schemas directly inside a schema, definitions last, each with its pointer from there.
fn parts(schema: &Value) -> impl Iterator<Item = (String, &Value)> {
    let fields = schema.as_object().into_iter().flatten();
    let (defined, own): (Vec<_>, Vec<_>) =
        fields.partition(|(name, _)| DEFINITIONS.contains(&name.as_str()));
    own.into_iter().chain(defined).flat_map(|(name, value)| {
        let at = format!("/{}", escape(name));
        let by_name = BY_NAME.contains(&name.as_str());
        let literal = LITERAL.contains(&name.as_str());
        match value {
            Value::Object(inner) if by_name => inner
                .iter()
                .map(|(name, part)| (format!("{at}/{}", escape(name)), part))
                .collect(),
            Value::Array(items) if !literal => items
                .iter()
                .enumerate()
                .map(|(index, part)| (format!("{at}/{index}"), part))
                .collect(),
            Value::Object(_) if !literal => vec![(at, value)],
            _ => Vec::new(),
        }
    })
}

/// A part as a schema of its own, with what the whole defines.
fn with_definitions(part: &Value, root: &Value) -> Value {
    let mut part = part.clone();
    if let Some(fields) = part.as_object_mut() {
        for name in DEFINITIONS {
            if let Some(defined) = root.get(name) {
                fields
                    .entry(name.to_owned())
                    .or_insert_with(|| defined.clone());
            }
        }
    }
    part
}

fn remove(schema: &mut Value, pointer: &str) -> bool {
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        return false;
    };
    let name = name.replace("~1", "/").replace("~0", "~");
    schema
        .pointer_mut(parent)
        .and_then(Value::as_object_mut)
        .is_some_and(|fields| fields.shift_remove(&name).is_some())
}

fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// What llguidance says, for somebody who does not know it.
fn words(why: &str) -> String {
    let first = first_line(why);
    if first.starts_with("Unimplemented keys") {
        return "this keyword is not supported".to_owned();
    }
    if first.starts_with("oneOf constraints") {
        return "supported only where its schemas exclude each other by type, constant or required property; \
                anyOf has no such limit"
            .to_owned();
    }
    // Errors of regular expressions end with what is wrong, after a drawing.
    match why.lines().find_map(|line| line.strip_prefix("error: ")) {
        Some(error) => format!("{first} {error}"),
        None => first.to_owned(),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}
