//! The chat room from outside: conversations to prompts, answers back to calls, for every family of templates.

mod chat {
    pub(crate) mod families;
    mod parsing;
    mod rendering;
    mod upstream;
}
