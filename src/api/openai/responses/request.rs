//! The body of a request → the chat request it comes to, and what its answer repeats.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    history::{History, conversation},
    id,
    items::{self, Item},
    messages::messages,
    names::Names,
    refused::refuse,
    resource::{Resource, Sampled},
    store::Stored,
    text,
    tools::{self, Spaces},
};
use crate::api::{Identity, error::ApiError, fields::Fields};

/// What the answer needs of the request.
pub(super) struct Asked {
    pub(super) resource: Resource,
    pub(super) spaces: Spaces,
    /// `None`: the answer is not to be kept.
    pub(super) keeping: Option<Keeping>,
    /// Whether the request refers to nothing that is kept.
    pub(super) stands_alone: bool,
    pub(super) warnings: Vec<String>,
}

impl Asked {
    /// The server keeps no answers.
    pub(super) fn keep_nothing(&mut self) {
        self.keeping = None;
        self.resource.store = false;
    }
}

/// What is kept of the request beside its answer.
pub(super) struct Keeping {
    /// A JSON array.
    pub(super) input: Vec<u8>,
    pub(super) items: Vec<String>,
    pub(super) previous: Option<Arc<Stored>>,
}

/// Read here; everything else means the same as in a chat request.
const OURS: [&str; 23] = [
    "background",
    "context_management",
    "conversation",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream_options",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "truncation",
];

/// What may be asked to be included; all but the first say nothing about a model that has no tools of its own.
const LOGPROBS: &str = "message.output_text.logprobs";
const INCLUDABLE: [&str; 8] = [
    LOGPROBS,
    "reasoning.encrypted_content",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "web_search_call.action.sources",
    "web_search_call.results",
];

/// The chat request, and what it leaves out. `names` learns what the caller calls its parts.
pub(super) fn read(
    body: Map<String, Value>,
    history: &mut History<'_>,
    identity: &Identity,
    names: &mut Names,
) -> Result<(Map<String, Value>, Asked), ApiError> {
    let fields = Fields::new(&body);
    refuse(fields)?;
    let mut chat = Map::new();
    let mut warnings = Vec::new();

    let tools = tools::read(fields, names)?;
    if !tools.offered.is_empty() {
        chat.insert("tools".to_owned(), tools.offered.into());
    }
    if let Some(choice) = tools.choice {
        chat.insert("tool_choice".to_owned(), choice);
    }
    warnings.extend(tools.warnings);

    let previous = fields.text("previous_response_id")?;
    let previous = previous.map(|id| history.previous(id)).transpose()?;
    let mut items = previous.as_ref().map(conversation).unwrap_or_default();
    let fresh = items.len();
    items.extend(items::read(fields, history)?);
    let instructions = fields.text("instructions")?;
    let (messages, told) = messages(instructions, &items, names)?;
    chat.insert("messages".to_owned(), messages.into());
    warnings.extend(told);

    let text = text::read(fields, &mut chat)?;
    let reasoning = reasoning(fields, &mut chat, &mut warnings)?;
    let top_logprobs = logprobs(fields, &mut chat)?;
    let most = i64::from(u32::MAX);
    let max_output_tokens = fields.integer::<u32>("max_output_tokens", 1..=most)?;
    if let Some(tokens) = max_output_tokens {
        chat.insert("max_completion_tokens".to_owned(), tokens.into());
    }
    let store = fields.flag("store")?.unwrap_or(true);
    let own = |name: &str| Ok::<_, ApiError>(fields.text(name)?.map(str::to_owned));
    fields.text("service_tier")?;
    fields.text("prompt_cache_retention")?;
    let resource = Resource {
        id: id("resp"),
        object: "response",
        created_at: super::now(),
        background: false,
        instructions: own("instructions")?,
        max_output_tokens,
        // OpenAI counts the tools that it runs itself, and here are none.
        max_tool_calls: fields.integer("max_tool_calls", 1..=most)?,
        model: identity.model.clone(),
        parallel_tool_calls: fields.flag("parallel_tool_calls")?.unwrap_or(true),
        previous_response_id: own("previous_response_id")?,
        prompt_cache_key: own("prompt_cache_key")?,
        reasoning,
        safety_identifier: own("safety_identifier")?,
        service_tier: "default",
        store,
        text,
        tool_choice: fields
            .get("tool_choice")
            .cloned()
            .unwrap_or_else(|| "auto".into()),
        tools: tools.shown,
        top_logprobs,
        truncation: "disabled",
        user: own("user")?,
        metadata: metadata(fields)?,
        system_fingerprint: identity.fingerprint.clone(),
        sampling: Sampled::default(),
    };
    let keeping = store.then(|| keeping(&items[fresh..], previous)).flatten();
    for (name, value) in body {
        if !OURS.contains(&name.as_str()) {
            chat.insert(name, value);
        }
    }
    let asked = Asked {
        resource,
        spaces: tools.spaces,
        keeping,
        stands_alone: history.is_untouched(),
        warnings,
    };
    Ok((chat, asked))
}

fn reasoning(
    fields: Fields<'_>,
    chat: &mut Map<String, Value>,
    warnings: &mut Vec<String>,
) -> Result<Value, ApiError> {
    let Some(object) = fields.object("reasoning")? else {
        return Ok(json!({"effort": null, "summary": null}));
    };
    let inside = Fields::within(object, "reasoning.");
    let effort = inside.text("effort")?;
    if let Some(effort) = effort {
        chat.insert("reasoning_effort".to_owned(), effort.into());
    }
    let mut summary = None;
    for name in ["generate_summary", "summary"] {
        let given = inside.text(name)?;
        match given {
            None | Some("auto" | "none") => {}
            Some("concise" | "detailed") => warnings.push(format!(
                "reasoning.{name}: reasoning is sent as it is, not summarised"
            )),
            Some(_) => {
                return Err(inside.wrong(name, "\"auto\", \"concise\" or \"detailed\""));
            }
        }
        summary = given.or(summary);
    }
    Ok(json!({"effort": effort, "summary": summary}))
}

/// How many alternatives are asked for; log-probabilities are told if this or `include` says so.
fn logprobs(fields: Fields<'_>, chat: &mut Map<String, Value>) -> Result<u8, ApiError> {
    let mut wanted = false;
    for (at, name) in fields.array("include")?.into_iter().flatten().enumerate() {
        if !INCLUDABLE.iter().any(|known| name == known) {
            let param = format!("include[{at}]");
            let message = format!("{param}: expected one of {INCLUDABLE:?}");
            return Err(ApiError::invalid(param, message));
        }
        wanted |= name == LOGPROBS;
    }
    let top = fields.integer::<u8>("top_logprobs", 0..=20)?;
    let count = top.unwrap_or(0);
    if wanted || count > 0 {
        chat.insert("logprobs".to_owned(), true.into());
        chat.insert("top_logprobs".to_owned(), count.into());
    }
    Ok(count)
}

/// As OpenAI bounds it.
fn metadata(fields: Fields<'_>) -> Result<Value, ApiError> {
    let Some(object) = fields.object("metadata")? else {
        return Ok(json!({}));
    };
    let fits = |(key, value): (&String, &Value)| {
        let value = value.as_str().map(|text| text.chars().count());
        key.chars().count() <= 64 && value.is_some_and(|length| length <= 512)
    };
    if object.len() > 16 || !object.iter().all(fits) {
        let accepted = "at most 16 texts of up to 512 characters, under keys of up to 64";
        return Err(fields.wrong("metadata", accepted));
    }
    Ok(object.clone().into())
}

fn keeping(items: &[Item], previous: Option<Arc<Stored>>) -> Option<Keeping> {
    let values: Vec<_> = items.iter().map(|item| &item.value).collect();
    let ids = values.iter().filter_map(|item| item["id"].as_str());
    Some(Keeping {
        items: ids.map(str::to_owned).collect(),
        input: serde_json::to_vec(&values).ok()?,
        previous,
    })
}
