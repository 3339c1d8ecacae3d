//! The tools of a request: which of them the model is offered, and under which names.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::names::Names;
use crate::api::{error::ApiError, fields::Fields};

/// What a request says about tools.
pub(super) struct Tools {
    /// As the chat takes them.
    pub(super) offered: Vec<Value>,
    /// `tool_choice` as the chat takes it.
    pub(super) choice: Option<Value>,
    /// The tools as the answer repeats them.
    pub(super) shown: Vec<Value>,
    /// Functions that are called by another name than they are offered under.
    pub(super) spaces: Spaces,
    pub(super) warnings: Vec<String>,
}

/// Namespace and own name of a function, by the name that the model knows it under.
#[derive(Default)]
pub(super) struct Spaces(HashMap<String, (String, String)>);

impl Spaces {
    /// The namespace, if any, and the name within it.
    pub(super) fn split<'a>(&'a self, offered: &'a str) -> (Option<&'a str>, &'a str) {
        match self.0.get(offered) {
            Some((space, name)) => (Some(space), name),
            None => (None, offered),
        }
    }
}

/// What the model is told a function of a namespace is called.
pub(super) fn qualified(space: &str, name: &str) -> String {
    format!("{space}__{name}")
}

pub(super) fn read(fields: Fields<'_>, names: &mut Names) -> Result<Tools, ApiError> {
    let mut tools = Tools {
        offered: Vec::new(),
        choice: None,
        shown: Vec::new(),
        spaces: Spaces::default(),
        warnings: Vec::new(),
    };
    for (at, tool) in fields.array("tools")?.into_iter().flatten().enumerate() {
        let path = format!("tools[{at}]");
        tools.add(&path, tool, names)?;
    }
    tools.choose(fields, names)?;
    Ok(tools)
}

impl Tools {
    fn add(&mut self, path: &str, tool: &Value, names: &mut Names) -> Result<(), ApiError> {
        let object = object(path, tool)?;
        let inside = format!("{path}.");
        let fields = Fields::within(object, &inside);
        match fields.text("type")? {
            Some("function") => {
                let name = name(fields)?.to_owned();
                self.shown.push(shown(object));
                self.offer(path.to_owned(), object, name, names);
            }
            Some("namespace") => {
                let space = name(fields)?;
                let Some(list) = fields.array("tools")? else {
                    return Err(fields.wrong("tools", "an array of functions"));
                };
                for (at, tool) in list.iter().enumerate() {
                    self.add_within(&format!("{path}.tools[{at}]"), space, tool, names)?;
                }
                self.shown.push(tool.clone());
            }
            Some(kind) => self.leave_out(path, kind),
            None => return Err(fields.wrong("type", "\"function\"")),
        }
        Ok(())
    }

    fn add_within(
        &mut self,
        path: &str,
        space: &str,
        tool: &Value,
        names: &mut Names,
    ) -> Result<(), ApiError> {
        let object = object(path, tool)?;
        let inside = format!("{path}.");
        let fields = Fields::within(object, &inside);
        match fields.text("type")? {
            Some("function") => {
                let name = name(fields)?;
                let offered = qualified(space, name);
                let own = (space.to_owned(), name.to_owned());
                self.spaces.0.insert(offered.clone(), own);
                self.offer(path.to_owned(), object, offered, names);
            }
            Some(kind) => self.leave_out(path, kind),
            None => return Err(fields.wrong("type", "\"function\"")),
        }
        Ok(())
    }

    fn offer(
        &mut self,
        path: String,
        function: &Map<String, Value>,
        name: String,
        names: &mut Names,
    ) {
        let mut offered = Map::new();
        offered.insert("name".to_owned(), name.into());
        for key in ["description", "parameters", "strict"] {
            if let Some(value) = function.get(key).filter(|value| !value.is_null()) {
                offered.insert(key.to_owned(), value.clone());
            }
        }
        names.tools.push(path);
        self.offered
            .push(json!({"type": "function", "function": offered}));
    }

    fn leave_out(&mut self, path: &str, kind: &str) {
        self.warnings.push(format!(
            "{path}: the model is not offered tools of type {kind:?}"
        ));
    }

    /// `tool_choice`; the tools that it does not allow are not offered.
    fn choose(&mut self, fields: Fields<'_>, names: &mut Names) -> Result<(), ApiError> {
        const ACCEPTED: &str = "\"auto\", \"none\", \"required\", {\"type\": \"function\", \"name\": …} \
                                or {\"type\": \"allowed_tools\", \"mode\": …, \"tools\": […]}";
        let Some(choice) = fields.get("tool_choice") else {
            return Ok(());
        };
        let Value::Object(object) = choice else {
            let words = ["auto", "none", "required"];
            if !words.iter().any(|word| choice == word) {
                return Err(fields.wrong("tool_choice", ACCEPTED));
            }
            self.choice = Some(choice.clone());
            return Ok(());
        };
        let inside = Fields::within(object, "tool_choice.");
        match inside.text("type")? {
            Some("function") => {
                let name = chosen(inside)?;
                self.choice = Some(json!({"type": "function", "function": {"name": name}}));
            }
            Some("allowed_tools") => {
                self.choice = Some(match inside.text("mode")? {
                    None | Some("auto") => "auto".into(),
                    Some("required") => "required".into(),
                    Some(_) => return Err(inside.wrong("mode", "\"auto\" or \"required\"")),
                });
                self.allow(inside, names)?;
            }
            Some(kind) => {
                let message = format!(
                    "tool_choice.type: the model is not offered tools of type {kind:?}, so that it cannot call one"
                );
                return Err(ApiError::invalid("tool_choice.type", message));
            }
            None => return Err(fields.wrong("tool_choice", ACCEPTED)),
        }
        Ok(())
    }

    fn allow(&mut self, choice: Fields<'_>, names: &mut Names) -> Result<(), ApiError> {
        let Some(list) = choice.array("tools")? else {
            return Err(choice.wrong("tools", "an array of tools"));
        };
        let mut allowed = Vec::new();
        for (at, tool) in list.iter().enumerate() {
            let path = format!("tool_choice.tools[{at}]");
            let object = object(&path, tool)?;
            let inside = format!("{path}.");
            let fields = Fields::within(object, &inside);
            if fields.text("type")? != Some("function") {
                // It was not offered in the first place.
                continue;
            }
            let name = chosen(fields)?;
            if !self.offered.iter().any(|tool| offers(tool, &name)) {
                let message = format!("{path}.name: {name:?} is not among the tools");
                return Err(ApiError::invalid(format!("{path}.name"), message));
            }
            allowed.push(name);
        }
        let paths = std::mem::take(&mut names.tools);
        let both = std::mem::take(&mut self.offered).into_iter().zip(paths);
        let kept = both.filter(|(tool, _)| allowed.iter().any(|name| offers(tool, name)));
        (self.offered, names.tools) = kept.unzip();
        Ok(())
    }
}

fn object<'a>(path: &str, tool: &'a Value) -> Result<&'a Map<String, Value>, ApiError> {
    tool.as_object().ok_or_else(|| {
        let message = format!("{path}: expected a tool, an object");
        ApiError::invalid(path, message)
    })
}

fn name(fields: Fields<'_>) -> Result<&str, ApiError> {
    let name = fields.text("name")?;
    name.ok_or_else(|| fields.wrong("name", "a string"))
}

/// The name under which the model is offered the function that a choice names.
fn chosen(fields: Fields<'_>) -> Result<String, ApiError> {
    let name = name(fields)?;
    Ok(match fields.text("namespace")? {
        Some(space) => qualified(space, name),
        None => name.to_owned(),
    })
}

fn offers(tool: &Value, name: &str) -> bool {
    tool["function"]["name"] == name
}

/// A function as the answer repeats it: with all of its fields.
fn shown(function: &Map<String, Value>) -> Value {
    let mut shown = function.clone();
    for key in ["description", "parameters", "strict"] {
        shown.entry(key).or_insert(Value::Null);
    }
    Value::Object(shown)
}
