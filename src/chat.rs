//! Messages to prompt, and generated text back to content, reasoning and tool calls, by llama.cpp's `common/chat`.

mod delta;
mod format;
mod hermes;
mod messages;
mod outline;
mod parser;
mod request;
mod schema;
mod shim;
mod tools;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use delta::{Delta, FunctionDelta, ToolCallDelta};
pub use parser::Parser;

use crate::engine::{Gbnf, Token, Trigger, constrain::Frame, llama::Weights};
use format::Format;
use hermes::Hermes;
use request::Request;
use shim::{Failure, Source, Templates};

/// A model's chat template, ready to use from any thread.
pub struct Chat {
    templates: Templates,
    source: String,
    capabilities: Capabilities,
    transcription: Instruction,
    /// For tools, where the template has none.
    hermes: Option<Hermes>,
}

/// What is said to a model of this family that is to do one thing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Instruction {
    /// May be empty.
    pub system: String,
    pub user: String,
}

/// What the shim tells of a template.
#[derive(Deserialize)]
struct Facts {
    source: String,
    own_template: bool,
    transcription: Instruction,
    #[serde(flatten)]
    capabilities: Capabilities,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The request's fault: bad message, role, tool or schema. Begins with the field's path where one is at fault.
    #[error("{0}")]
    Invalid(String),
    #[error("chat template: {0}")]
    Internal(String),
}

/// What a template can do. Found out by rendering with it, not by its claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, as they go on the wire"
)]
pub struct Capabilities {
    /// Answers may begin with reasoning that is told apart from the content.
    pub thinking: bool,
    /// Tool calls can be asked for, constrained and read back.
    pub tool_calls: bool,
    pub parallel_tool_calls: bool,
    /// The prompt tells the model which tools there are.
    pub describes_tools: bool,
    /// Otherwise system messages are merged into the next one.
    pub system_role: bool,
    /// `reasoning_effort` changes the prompt.
    pub reasoning_effort: bool,
}

/// A prompt with all that is needed to read the answer to it.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// To be tokenised with special tokens parsed; whether BOS is added is the vocabulary's matter.
    pub prompt: String,
    pub grammar: Option<Gbnf>,
    /// Stop strings of the template itself.
    pub stops: Vec<String>,
    /// Control tokens, as text, that must stay visible to the parser.
    pub preserved: Vec<String>,
    /// The marks around reasoning, if the template has any. A lazy grammar must not start between them.
    pub thinking: Option<Thinking>,
    /// What of the request has no effect with this template; for the log and a response header.
    pub warnings: Vec<String>,
    /// What [`Parser::new`] needs.
    pub(crate) parser: Value,
}

/// The marks around reasoning, such as `<think>` and `</think>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thinking {
    pub start: String,
    /// Any of these ends it.
    pub ends: Vec<String>,
    /// Whether the prompt has begun it.
    pub begun: bool,
}

impl Chat {
    /// The model's own template, or `template` in its place with the model's special tokens.
    /// Without `weights` there must be a `template`, which then has no special tokens.
    pub fn new(weights: Option<&Weights>, template: Option<&str>) -> Result<Self, ChatError> {
        match (weights, template) {
            (Some(weights), template) => Self::build(&Source::Model { weights, template }),
            (None, Some(template)) => Self::from_template(template, "", ""),
            (None, None) => Err(ChatError::Internal(
                "neither a model nor a template is given".to_owned(),
            )),
        }
    }

    /// A template without a model; `bos` and `eos` are the texts of its special tokens.
    pub fn from_template(template: &str, bos: &str, eos: &str) -> Result<Self, ChatError> {
        Self::build(&Source::Text { template, bos, eos })
    }

    fn build(source: &Source<'_>) -> Result<Self, ChatError> {
        // Whatever is wrong here is wrong for every request: the operator's matter, not a caller's.
        let (templates, facts) = Templates::new::<Facts>(source).map_err(|failure| {
            let (Failure::Caller(why) | Failure::Internal(why)) = failure;
            ChatError::Internal(why)
        })?;
        if !facts.own_template {
            tracing::warn!("the model has no chat template; ChatML is assumed");
        }
        Ok(Self {
            templates,
            source: facts.source,
            hermes: Hermes::beside(facts.capabilities)?,
            capabilities: facts.capabilities,
            transcription: facts.transcription,
        })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What asks this family to write a sound down; the sound follows the user's text.
    pub fn transcription(&self) -> &Instruction {
        &self.transcription
    }

    pub fn capabilities(&self) -> Capabilities {
        if self.hermes.is_some() {
            Hermes::with(self.capabilities)
        } else {
            self.capabilities
        }
    }

    /// `request`: the body of a chat request. Read are `messages`, `tools`, `tool_choice`, `parallel_tool_calls`,
    /// `response_format`, `reasoning_effort` and llama-server's `json_schema`, `grammar`, `enable_thinking`,
    /// `reasoning_format`, `chat_template_kwargs`, `add_generation_prompt`, `continue_final_message`.
    pub fn render(&self, request: &Value) -> Result<Rendered, ChatError> {
        let request = Request::read(request, self.capabilities())?;
        self.apply(request).map(|(rendered, _)| rendered)
    }

    /// As [`Self::render`], for an answer whose content is held to a form by other means than a grammar of llama.cpp;
    /// `asked_by` is the field that names the form. No tool is called. `None`: it is not known where in this
    /// template's answers the content stands.
    pub fn render_framed(
        &self,
        request: &Value,
        asked_by: &str,
    ) -> Result<Option<(Rendered, Frame)>, ChatError> {
        let request = Request::read(request, self.capabilities())?.without_tools(asked_by)?;
        let (rendered, format) = self.apply(request)?;
        Ok(outline::frame(&format).map(|frame| (rendered, frame)))
    }

    fn apply(&self, mut request: Request) -> Result<(Rendered, Format), ChatError> {
        loop {
            let applied = match &self.hermes {
                Some(hermes) => hermes.apply(&self.templates, &request),
                None => self.templates.apply::<Applied>(json!(request).to_string()),
            };
            match applied {
                Ok(mut applied) => {
                    if !request.parallel_tool_calls {
                        applied.call_once();
                    }
                    return applied.into_rendered(request.grammar, request.warnings);
                }
                Err(Failure::Caller(why)) if request.relax(&why) => {}
                Err(Failure::Caller(why)) => return Err(request.refusal(&why)),
                Err(Failure::Internal(why)) => return Err(ChatError::Internal(why)),
            }
        }
    }
}

impl Rendered {
    /// Whether a lazy grammar starts with this mark.
    fn is_trigger(&self, mark: &str) -> bool {
        let mut triggers = self.grammar.iter().flat_map(|grammar| &grammar.triggers);
        triggers.any(|trigger| matches!(trigger, Trigger::Word(word) if word.starts_with(mark)))
    }
}

fn internal(error: &impl ToString) -> ChatError {
    ChatError::Internal(error.to_string())
}

/// The answer of `shim_chat_apply`.
#[derive(Deserialize)]
struct Applied {
    prompt: String,
    grammar: Option<TemplateGrammar>,
    stops: Vec<String>,
    preserved: Vec<String>,
    parser: Value,
}

#[derive(Deserialize)]
struct TemplateGrammar {
    gbnf: String,
    lazy: bool,
    triggers: Vec<TemplateTrigger>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum TemplateTrigger {
    Token { token: Token },
    Word { value: String },
    Pattern { value: String },
    PatternFull { value: String },
}

impl Applied {
    /// Most of llama.cpp's grammars for calls have room for several, whatever was asked for.
    fn call_once(&mut self) {
        if let Some(grammar) = &mut self.grammar {
            let several = "\ntool-calls ::= (tool-call space)+\n";
            let one = "\ntool-calls ::= tool-call space\n";
            grammar.gbnf = grammar.gbnf.replace(several, one);
        }
    }

    fn into_rendered(
        self,
        own_grammar: Option<String>,
        warnings: Vec<String>,
    ) -> Result<(Rendered, Format), ChatError> {
        let format = Format::deserialize(&self.parser).map_err(|e| internal(&e))?;
        let grammar = match (self.grammar, own_grammar) {
            // Lazy without a trigger: it would never start.
            (Some(grammar), _) if grammar.lazy && grammar.triggers.is_empty() => None,
            (Some(grammar), _) => Some(grammar.into_grammar(format.generation_prompt.clone())),
            // The caller's grammar is for the answer alone: it knows nothing of the prompt's end.
            (None, Some(gbnf)) => Some(Gbnf {
                gbnf,
                ..Gbnf::default()
            }),
            (None, None) => None,
        };
        let thinking = (!format.thinking_ends.is_empty()).then_some(Thinking {
            begun: format.begins_thinking(),
            start: format.thinking_start.clone(),
            ends: format.thinking_ends.clone(),
        });
        let rendered = Rendered {
            prompt: self.prompt,
            grammar,
            stops: self.stops,
            preserved: self.preserved,
            thinking,
            warnings,
            parser: self.parser,
        };
        Ok((rendered, format))
    }
}

impl TemplateGrammar {
    fn into_grammar(self, generation_prompt: String) -> Gbnf {
        let triggers = if self.lazy { self.triggers } else { Vec::new() };
        let gbnf = if self.lazy {
            self.gbnf
        } else {
            call_at_once(self.gbnf)
        };
        Gbnf {
            gbnf,
            triggers: triggers
                .into_iter()
                .map(|trigger| match trigger {
                    TemplateTrigger::Token { token } => Trigger::Token(token),
                    TemplateTrigger::Word { value } => Trigger::Word(value),
                    TemplateTrigger::Pattern { value } => Trigger::Pattern(value),
                    TemplateTrigger::PatternFull { value } => Trigger::PatternFull(value),
                })
                .collect(),
            generation_prompt,
        }
    }
}

/// Where a tool must be called, llama.cpp lets any text come before the call, which small models never end. The call
/// comes at once instead, or after thinking.
fn call_at_once(gbnf: String) -> String {
    let Some(root) = gbnf.lines().find(|line| line.starts_with("root ::=")) else {
        return gbnf;
    };
    let words: Vec<_> = root.split(' ').collect();
    let is_text_before_call = |at: usize| {
        let next = words.get(at + 1);
        words[at].starts_with("until-")
            && words[at].ends_with('?')
            && next.is_some_and(|next| next.starts_with("tool-call"))
    };
    let kept = (0..words.len()).filter(|&at| !is_text_before_call(at));
    let called = kept.map(|at| words[at]).collect::<Vec<_>>().join(" ");
    gbnf.replacen(root, &called, 1)
}
