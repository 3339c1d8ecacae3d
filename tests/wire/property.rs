//! Whatever JSON comes in, the server neither breaks nor calls it its own fault.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value, json};

use crate::support::{Server, chat_body, text, value};

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3_i64..40).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        select(vec![
            "auto",
            "text",
            "user",
            "assistant",
            "tool",
            "function",
            "required",
            "none"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let name = prop_oneof![
            select(vec![
                "role",
                "content",
                "type",
                "text",
                "function",
                "name",
                "arguments",
                "schema"
            ])
            .prop_map(str::to_owned),
            ".{0,6}",
        ];
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((name, inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

const NAMES: &[&str] = &[
    "messages",
    "prompt",
    "model",
    "n",
    "max_tokens",
    "temperature",
    "top_k",
    "stop",
    "seed",
    "stream",
    "stream_options",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "tools",
    "tool_choice",
    "response_format",
    "parallel_tool_calls",
    "reasoning_effort",
    "chat_template_kwargs",
    "dry_sequence_breakers",
    "echo",
    "suffix",
    "best_of",
    "modalities",
    "mirostat",
    "repeat_last_n",
    "json_schema",
    "grammar",
    "regex",
    "lark",
    "guided_json",
    "guided_choice",
    "structured_outputs",
    "add_generation_prompt",
    "continue_final_message",
];

fn fields() -> impl Strategy<Value = Value> {
    vec((select(NAMES), anything()), 0..6).prop_map(|fields| {
        let named = fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        Value::Object(named.collect::<Map<_, _>>())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_json_is_the_servers_fault(fields in fields(), whole in anything()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::ready();
            let mut prompted = fields.clone();
            prompted["prompt"] = json!("a\n");
            for (path, body) in [
                ("/v1/chat/completions", chat_body("a", fields.clone())),
                ("/v1/completions", prompted),
                ("/v1/chat/completions", whole.clone()),
                ("/v1/completions", whole),
            ] {
                let response = server.post(path, body.clone()).await;
                let status = response.status().as_u16();
                prop_assert!(status < 500, "{status} for {body} at {path}");
                if status == 200 {
                    text(response).await;
                } else {
                    prop_assert!(value(response).await["error"]["message"].is_string());
                }
            }
            Ok(())
        })?;
    }

    #[test]
    fn no_bytes_are_the_servers_fault(bytes in vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::ready();
            let request = crate::support::post("/v1/completions", bytes);
            prop_assert!(server.send(request).await.status().is_client_error());
            Ok(())
        })?;
    }
}
