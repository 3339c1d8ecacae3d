//! Conversations to prompts: what is accepted, what is refused and in which words.

use std::{sync::Arc, thread};

use llm_server::{
    chat::{Chat, ChatError},
    engine::Trigger,
};
use serde_json::{Value, json};

use super::families::{FAMILIES, family, plain, read, tools, with_tools};

fn refused(name: &str, request: &Value) -> String {
    match family(name).chat().render(request) {
        Err(ChatError::Invalid(why)) => why,
        other => panic!("{request}: {other:?}"),
    }
}

#[test]
fn every_family_renders_a_conversation_and_its_tools() {
    for family in &FAMILIES {
        let chat = family.chat();
        let can = chat.capabilities();
        assert_eq!(can.tool_calls, family.called.is_some(), "{}", family.name);
        assert_eq!(can.thinking, family.thought.is_some(), "{}", family.name);
        assert_eq!(chat.source().trim_end(), family.template.trim_end());
        let rendered = family.render(&plain());
        assert!(rendered.prompt.contains("Hi"), "{}", rendered.prompt);
        assert_eq!(rendered.grammar, None, "{}", family.name);
        let rendered = family.render(&with_tools());
        let described = rendered.prompt.contains("get_weather");
        assert_eq!(described, can.tool_calls, "{}", family.name);
        assert_eq!(
            rendered.warnings.is_empty(),
            can.tool_calls,
            "{}",
            family.name
        );
        let mut demanded = with_tools();
        demanded["tool_choice"] = json!("required");
        match chat.render(&demanded) {
            Ok(rendered) => assert!(can.tool_calls && rendered.grammar.is_some()),
            Err(why) => assert!(!can.tool_calls, "{}: {why}", family.name),
        }
    }
}

#[test]
fn a_call_that_was_cut_short_goes_back_to_the_model() {
    let function = json!({"name": "get_weather", "arguments": "{\"city\": \"Ro"});
    let mut request = with_tools();
    request["messages"] = json!([
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "tool_calls": [{"id": "a12345678", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "a12345678", "content": "no JSON"},
    ]);
    for family in FAMILIES.iter().filter(|family| family.called.is_some()) {
        let prompt = family.render(&request).prompt;
        assert!(prompt.contains("INVALID_JSON"), "{}: {prompt}", family.name);
        assert!(prompt.contains("Ro"), "{}: {prompt}", family.name);
    }
}

#[test]
fn a_prompt_looks_as_its_template_says() {
    let request = json!({"messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather"}, {"type": "text", "text": "here?"}]},
        {"role": "assistant", "content": null, "reasoning": "I look.", "tool_calls": [
            {"id": null, "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"Rome\"}"}},
        ]},
        {"role": "tool", "tool_call_id": null, "content": "rain", "cache_control": {}},
        {"role": "assistant", "content": "Rain.", "refusal": null, "tool_calls": []},
        {"role": "user", "content": "Thanks", "name": null},
    ]});
    insta::assert_snapshot!(family("qwen3").render(&request).prompt.trim_end(), @r#"
    <|im_start|>system
    Be brief.<|im_end|>
    <|im_start|>user
    Weather
    here?<|im_end|>
    <|im_start|>assistant
    <think>
    I look.
    </think>

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Rome"}}
    </tool_call><|im_end|>
    <|im_start|>user
    <tool_response>
    rain
    </tool_response><|im_end|>
    <|im_start|>assistant
    Rain.<|im_end|>
    <|im_start|>user
    Thanks<|im_end|>
    <|im_start|>assistant
    "#);
}

#[test]
fn thinking_is_switched_off_in_each_of_three_ways() {
    let qwen = family("qwen3");
    let on = qwen.render(&plain());
    assert!(
        on.prompt.ends_with("<|im_start|>assistant\n"),
        "{}",
        on.prompt
    );
    let thinking = on.thinking.expect("marks");
    assert_eq!(
        (thinking.start.as_str(), thinking.ends),
        ("<think>", vec!["</think>".to_owned()])
    );
    for (key, value) in [
        ("enable_thinking", json!(false)),
        ("chat_template_kwargs", json!({"enable_thinking": false})),
        ("reasoning_effort", json!("none")),
    ] {
        let mut request = plain();
        request[key] = value;
        let off = qwen.render(&request);
        assert!(
            off.prompt.ends_with("</think>\n\n"),
            "{key}: {}",
            off.prompt
        );
    }
}

#[test]
fn reasoning_effort_reaches_the_template() {
    let mut request = plain();
    request["reasoning_effort"] = json!("high");
    let prompt = family("harmony").render(&request).prompt;
    assert!(prompt.contains("Reasoning: high"), "{prompt}");
}

#[test]
fn a_free_choice_of_tools_has_a_lazy_grammar_and_a_demanded_one_has_not() {
    let free = family("qwen3")
        .render(&with_tools())
        .grammar
        .expect("a grammar");
    assert_eq!(free.triggers, [Trigger::Word("<tool_call>\n".to_owned())]);
    assert!(free.gbnf.contains("get_weather") && free.gbnf.contains("now"));
    let mut request = with_tools();
    request["tool_choice"] = json!("required");
    let demanded = family("qwen3").render(&request).grammar.expect("a grammar");
    assert_eq!(demanded.triggers, []);
    assert!(demanded.gbnf.contains("root ::="));
    assert_eq!(demanded.generation_prompt, "<|im_start|>assistant\n");
    request["tool_choice"] = json!("none");
    assert_eq!(family("qwen3").render(&request).grammar, None);
}

#[test]
fn a_named_tool_is_the_only_one_left() {
    let mut request = with_tools();
    request["tool_choice"] = json!({"type": "function", "function": {"name": "now"}});
    let rendered = family("qwen3").render(&request);
    let grammar = rendered.grammar.expect("a grammar");
    assert!(grammar.gbnf.contains("now") && !grammar.gbnf.contains("get_weather"));
    assert_eq!(grammar.triggers, []);
}

#[test]
fn a_template_that_thinks_without_tool_calls_refuses_a_demanded_one() {
    // Calls in a form that it does not know would have no place beside its thoughts.
    let template = concat!(
        "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}",
        "{% if add_generation_prompt %}[assistant]{% if enable_thinking %}<think>{% else %}<think></think>{% endif %}{% endif %}",
    );
    let chat = Chat::from_template(template, "", "").unwrap();
    for choice in [
        json!("required"),
        json!({"type": "function", "function": {"name": "now"}}),
    ] {
        let mut request = with_tools();
        request["tool_choice"] = choice;
        insta::allow_duplicates! {
            insta::assert_snapshot!(chat.render(&request).unwrap_err(), @"tool_choice: demands a tool call, but this model's chat template has no tool calls");
        }
    }
    insta::assert_snapshot!(chat.render(&with_tools()).unwrap().warnings.join("\n"), @"tools: this model's chat template has no tool calls; none will be made");
}

#[test]
fn one_call_is_all_where_several_are_not_wanted() {
    for (name, demanded, several) in [
        ("qwen3", json!(false), false),
        ("qwen3", json!(true), true),
        // Models whose templates know no calls do not end them by themselves.
        ("chatml", Value::Null, false),
        ("chatml", json!(true), true),
    ] {
        let mut request = with_tools();
        request["tool_choice"] = json!("required");
        request["parallel_tool_calls"] = demanded;
        let grammar = family(name).render(&request).grammar.unwrap();
        let rule = grammar
            .gbnf
            .lines()
            .find(|line| line.starts_with("tool-calls ::="));
        assert_eq!(rule.unwrap().ends_with(")+"), several, "{name}: {rule:?}");
    }
}

#[test]
fn a_template_without_tools_is_told_of_them_in_words() {
    let mut request = with_tools();
    request["messages"] = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather here?"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"Rome\"}"}},
        ]},
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
    ]);
    let chatml = family("chatml");
    insta::assert_snapshot!(chatml.render(&request).prompt, @r#"
    <|im_start|>system
    Be brief.
    You have tools. Each is described by one line of JSON:
    <tools>
    {"type":"function","function":{"name":"get_weather","description":"Weather in a city.","parameters":{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}}}
    {"type":"function","function":{"name":"now","description":"","parameters":{}}}
    </tools>
    To use one, answer with its name and arguments as JSON between these marks:
    <tool_call>
    {"name": "…", "arguments": {…}}
    </tool_call>
    What it gives comes back between <tool_response> and </tool_response>. Use a tool only where it helps.<|im_end|>
    <|im_start|>user
    Weather here?<|im_end|>
    <|im_start|>assistant
    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Rome"}}
    </tool_call><|im_end|>
    <|im_start|>user
    <tool_response>
    rain
    </tool_response><|im_end|>
    <|im_start|>assistant
    "#);
    // What came of calls stays, also where none may follow.
    request["tool_choice"] = json!("none");
    let rendered = chatml.render(&request);
    insta::assert_snapshot!(rendered.prompt, @r#"
    <|im_start|>system
    Be brief.<|im_end|>
    <|im_start|>user
    Weather here?<|im_end|>
    <|im_start|>assistant
    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Rome"}}
    </tool_call><|im_end|>
    <|im_start|>user
    <tool_response>
    rain
    </tool_response><|im_end|>
    <|im_start|>assistant
    "#);
    assert_eq!(rendered.grammar, None);
    // A form of its own leaves no call.
    request["tool_choice"] = json!("auto");
    request["response_format"] = json!({"type": "json_object"});
    let rendered = chatml.render(&request);
    let grammar = rendered.grammar.unwrap();
    assert!(!grammar.gbnf.contains("tool_call"), "{}", grammar.gbnf);
    insta::assert_snapshot!(rendered.warnings.join("\n"), @"response_format: an answer of this form calls no tool");
}

#[test]
fn every_response_format_becomes_a_grammar() {
    let schema =
        json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    for (format, word) in [
        (
            json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}}),
            "city",
        ),
        (json!({"type": "json_object"}), "object"),
        (json!({"type": "json_object", "schema": schema}), "city"),
        (
            json!({"type": "json_schema", "json_schema": {"name": "x"}}),
            "object",
        ),
    ] {
        for name in ["chatml", "qwen3", "harmony"] {
            let mut request = plain();
            request["response_format"] = format.clone();
            let grammar = family(name).render(&request).grammar.expect("a grammar");
            assert!(grammar.gbnf.contains(word), "{name}: {}", grammar.gbnf);
            assert_eq!(grammar.triggers, []);
        }
    }
    let mut request = plain();
    request["response_format"] = json!({"type": "text"});
    assert_eq!(family("chatml").render(&request).grammar, None);
}

#[test]
fn json_that_was_asked_for_is_content() {
    let mut request = plain();
    request["response_format"] = json!({"type": "json_object"});
    let message = read(&family("chatml").render(&request), ["{\"a\":", " 1}"]);
    assert_eq!(message.content, "{\"a\": 1}");
}

#[test]
fn the_callers_grammar_is_passed_on_as_it_is() {
    let mut request = plain();
    request["grammar"] = json!("root ::= \"yes\" | \"no\"");
    let grammar = family("qwen3").render(&request).grammar.expect("a grammar");
    assert_eq!(grammar.gbnf, "root ::= \"yes\" | \"no\"");
    assert_eq!(grammar.generation_prompt, "");
}

fn called(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name}})
}

fn allowed(mode: &str, tools: &Value) -> Value {
    json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}})
}

#[test]
fn only_allowed_tools_are_offered() {
    let mut request = with_tools();
    let other = json!({"type": "function", "function": {"name": "other", "parameters": {}}});
    request["tools"] = json!([tools()[0], other]);
    request["tool_choice"] = allowed("required", &json!([called("other")]));
    let rendered = family("qwen3").render(&request);
    assert!(
        !rendered.prompt.contains("get_weather"),
        "{}",
        rendered.prompt
    );
    let grammar = rendered.grammar.expect("a grammar");
    assert!(grammar.gbnf.contains("other") && grammar.triggers.is_empty());
    // No text comes before a demanded call.
    let root = grammar
        .gbnf
        .lines()
        .find(|line| line.starts_with("root ::="));
    let words: Vec<_> = root.expect("a root").split(' ').collect();
    let [.., before, call] = words[..] else {
        panic!("{words:?}")
    };
    assert!(
        call.starts_with("tool-call") && !before.starts_with("until-"),
        "{words:?}"
    );
}

#[test]
fn what_cannot_be_enforced_of_a_tool_is_left_out_and_said_unless_it_is_strict() {
    let deep = (0..100).fold(json!({}), |inner, _| json!({"items": inner}));
    let schemas = [
        json!({"type": "string", "pattern": "^(a$"}),
        json!({"$ref": "https://example.org/x"}),
        json!({"type": "magic"}),
        deep,
    ];
    for schema in schemas {
        let parameters =
            json!({"type": "object", "properties": {"x": schema, "y": {"const": "kept"}}});
        let mut request = with_tools();
        request["tools"][0]["function"]["strict"] = false.into();
        request["tools"][0]["function"]["parameters"] = parameters;
        let rendered = family("qwen3").render(&request);
        let [warning] = &rendered.warnings[..] else {
            panic!("{schema}: {:?}", rendered.warnings)
        };
        assert!(
            warning.starts_with("tools[0].function.parameters"),
            "{warning}"
        );
        let grammar = rendered.grammar.expect("a grammar").gbnf;
        assert_eq!(
            grammar.contains("kept"),
            !warning.contains("nested"),
            "{grammar}"
        );
        request["tools"][0]["function"]["strict"] = true.into();
        refused("qwen3", &request);
    }
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "a list of cases and of what is said about each"
)]
fn what_is_wrong_with_a_request_is_named() {
    let user = json!({"role": "user", "content": "Hi"});
    let said =
        |calls: Value| json!({"messages": [{"role": "assistant", "tool_calls": calls}, user]});
    let with = |key: &str, value: Value| {
        let mut request = with_tools();
        request[key] = value;
        request
    };
    let schema = |schema: Value| {
        let mut request = plain();
        request["json_schema"] = schema;
        request
    };
    let cases = [
        json!([]),
        json!({}),
        json!({"messages": []}),
        json!({"messages": "Hi"}),
        json!({"messages": ["Hi"]}),
        json!({"messages": [{"role": "robot", "content": "Hi"}]}),
        json!({"messages": [{"role": 3, "content": "Hi"}]}),
        json!({"messages": [{"role": "user"}]}),
        json!({"messages": [{"role": "user", "content": 5}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
        said(json!("now")),
        said(json!([{"type": "magic"}])),
        said(json!([{"type": "function", "function": {}}])),
        said(json!([{"type": "function", "function": {"name": "now", "arguments": 5}}])),
        json!({"messages": [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        json!({"messages": [user], "continue_final_message": true}),
        with("tools", json!({})),
        with("tools", json!([{"type": "retrieval"}])),
        with("tools", json!([{"type": "function"}])),
        with(
            "tools",
            json!([{"type": "function", "function": {"name": ""}}]),
        ),
        with("tools", json!([tools()[0], tools()[0]])),
        with(
            "tools",
            json!([{"type": "function", "function": {"name": "f", "parameters": "string"}}]),
        ),
        with("tool_choice", json!("maybe")),
        with(
            "tool_choice",
            json!({"type": "function", "function": {"name": "nope"}}),
        ),
        with("tool_choice", json!({"type": "allowed_tools"})),
        with("tool_choice", allowed("auto", &json!("f"))),
        with("tool_choice", allowed("required", &json!([{"name": "f"}]))),
        with("tool_choice", allowed("auto", &json!([called("f")]))),
        with("parallel_tool_calls", json!("yes")),
        with("grammar", json!("root ::= \"a\"")),
        with("chat_template_kwargs", json!([])),
        with("chat_template_kwargs", json!({"enable_thinking": "false"})),
        with("chat_template_kwargs", json!({"messages": []})),
        with("reasoning_format", json!("hidden")),
        with("reasoning_effort", json!(3)),
        with("response_format", json!({"type": "xml"})),
        with("response_format", json!("json_object")),
        with("response_format", json!({"type": "json_schema"})),
        json!({"messages": [user], "tool_choice": "required"}),
        schema(json!("object")),
        schema(json!({"type": "nonsense"})),
        schema(json!({"$ref": "#/nowhere"})),
        schema(json!({"type": "string", "pattern": "^(a$"})),
        with(
            "tools",
            json!([{"type": "function", "function": {"name": "f", "strict": true, "parameters": {
                "type": "object", "properties": {"x": {"type": "magic"}},
            }}}]),
        ),
    ];
    let answers: Vec<_> = cases.iter().map(|case| refused("qwen3", case)).collect();
    insta::assert_snapshot!(answers.join("\n"), @r#"
    request: expected an object, got an array
    messages: expected an array of messages, got nothing
    messages: expected at least one message
    messages: expected an array of messages, got "Hi"
    messages[0]: expected an object, got "Hi"
    messages[0].role: expected one of ["system", "developer", "user", "assistant", "tool"], got "robot"
    messages[0].role: expected one of ["system", "developer", "user", "assistant", "tool"], got 3
    messages[0].content: expected a string or an array of parts, got nothing
    messages[0].content: expected a string or an array of parts, got 5
    messages[0].content[0].type: expected "text", got "image_url"
    messages[0].content[0].text: expected a string, got nothing
    messages[0].tool_calls: expected an array, got "now"
    messages[0].tool_calls[0].type: expected "function", got "magic"
    messages[0].tool_calls[0].function.name: expected a string, got nothing
    messages[0].tool_calls[0].function.arguments: expected JSON text, got 5
    messages[1]: two assistant messages at the end; which one to continue is unclear
    continue_final_message: the last message is not the assistant's
    tools: expected an array, got an object
    tools[0].type: expected "function", got "retrieval"
    tools[0].function: expected an object, got nothing
    tools[0].function.name: expected a string of 1 to 256 bytes, got ""
    tools[1].function.name: "get_weather" is there twice
    tools[0].function.parameters: expected a JSON schema, got "string"
    tool_choice: expected "auto", "none", "required", {"type": "function", "function": {"name": …}} or {"type": "allowed_tools", …}, got "maybe"
    tool_choice.function.name: "nope" is not among the tools
    tool_choice.allowed_tools.mode: expected "auto" or "required", got nothing
    tool_choice.allowed_tools.tools: expected an array of tools, got "f"
    tool_choice.allowed_tools.tools[0]: expected {"type": "function", "function": {"name": …}}, got an object
    tool_choice.allowed_tools.tools[0].function.name: "f" is not among the tools
    parallel_tool_calls: expected a boolean, got "yes"
    grammar: not together with tools
    chat_template_kwargs: expected an object, got an array
    chat_template_kwargs.enable_thinking: expected a boolean, got "false"
    chat_template_kwargs.messages: set messages in the request itself
    reasoning_format: expected one of ["auto", "none", "deepseek", "deepseek-legacy"], got "hidden"
    reasoning_effort: expected a string, got 3
    response_format.type: expected "text", "json_object" or "json_schema", got "xml"
    response_format.type: expected "text", "json_object" or "json_schema", got nothing
    response_format.json_schema: expected an object, got nothing
    tool_choice: demands a tool call, but there are no tools
    json_schema: expected a JSON schema, got "object"
    json_schema: JSON schema error at #: unrecognized type nonsense
    json_schema: JSON schema error at #: cannot resolve $ref #/nowhere, nowhere not found
    json_schema: JSON schema conversion failed: Invalid pattern ^(a$: unbalanced parentheses
    tools: JSON schema error at #/properties/x: unrecognized type magic
    "#);
}

#[test]
fn what_a_template_raises_is_the_requests_fault() {
    let request = json!({"messages": [
        {"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi?"},
    ]});
    let why = refused("strict", &request);
    assert!(
        why.contains("roles must alternate user and assistant"),
        "{why}"
    );
}

#[test]
fn a_template_that_cannot_work_is_refused_at_once() {
    for (template, word) in [
        ("{% for x in %}", "Unexpected token"),
        ("{{ raise_exception('never') }}", "never"),
        ("", "neither"),
        ("a\0b", "NUL"),
    ] {
        match Chat::from_template(template, "", "") {
            Err(ChatError::Internal(why)) => assert!(why.contains(word), "{template}: {why}"),
            Err(other) => panic!("{template}: {other:?}"),
            Ok(_) => panic!("{template:?} was accepted"),
        }
    }
    assert!(Chat::new(None, None).is_err());
}

#[test]
fn hostile_schemas_are_answered() {
    let nested = (0..100).fold(
        json!({"type": "string"}),
        |inner, _| json!({"type": "array", "items": inner}),
    );
    let wide: serde_json::Map<_, _> = (0..256)
        .map(|i| (format!("p{i}"), json!({"type": "string"})))
        .collect();
    let wider: serde_json::Map<_, _> = (0..5000).map(|i| (format!("p{i}"), json!({}))).collect();
    let underscores = "_".repeat(300_000);
    let parentheses = format!("^{}{}$", "(".repeat(100_000), ")".repeat(100_000));
    let schemas = [
        nested,
        json!({"type": "object", "properties": wide}),
        json!({"type": "object", "properties": wider}),
        json!({"type": "object", "properties": {&underscores: {}}}),
        json!({"$ref": format!("#/{underscores}")}),
        json!({"type": "string", "pattern": parentheses}),
        json!({"type": "string", "pattern": format!("^{}$", "a?".repeat(10_000))}),
        json!({"type": "string", "minLength": 1_000_000_000_u32, "maxLength": 2_000_000_000_u32}),
        json!({"type": "array", "items": {"type": "integer"}, "minItems": -5}),
        json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}),
        json!({"type": "integer", "minimum": 1e300}),
        json!({"$ref": "#/a", "a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}}),
        json!({"$ref": "#"}),
        json!({"anyOf": []}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"enum": []}),
        json!({"const": underscores}),
        json!({"type": ["string", 5, null]}),
        json!({"properties": 5, "required": {}}),
    ];
    for schema in schemas {
        let mut request = plain();
        request["json_schema"] = schema.clone();
        let mut tool = with_tools();
        tool["tools"][0]["function"]["parameters"] = schema;
        for request in [request, tool] {
            for name in ["chatml", "qwen3", "qwen3-coder", "harmony"] {
                let answer = family(name).chat().render(&request);
                assert!(!matches!(answer, Err(ChatError::Internal(_))), "{answer:?}");
            }
        }
    }
}

#[test]
fn eight_threads_at_once_get_the_same_prompts_and_messages() {
    for name in ["qwen3", "deepseek", "harmony"] {
        let family = family(name);
        let chat = Arc::new(family.chat());
        let rendered = chat.render(&with_tools()).expect("a prompt");
        let message = read(&rendered, family.called).without_ids();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let chat = Arc::clone(&chat);
                thread::spawn(move || {
                    (0..20)
                        .map(|_| {
                            let rendered = chat.render(&with_tools()).expect("a prompt");
                            let message = read(&rendered, family.called).without_ids();
                            (rendered.prompt, rendered.grammar, message)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for thread in threads {
            for (prompt, grammar, read) in thread.join().expect("no panic") {
                assert_eq!(prompt, rendered.prompt);
                assert_eq!(grammar, rendered.grammar);
                assert_eq!(read, message);
            }
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_thousand_renders_and_answers_leave_no_memory_behind() {
    fn resident_kib() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.expect("a number").parse().expect("a number")
    }
    let family = family("qwen3-coder");
    let chat = family.chat();
    let mut bad = with_tools();
    bad["json_schema"] = json!({"type": "nonsense"});
    bad["tool_choice"] = json!("none");
    let round = || {
        for _ in 0..250 {
            let rendered = chat.render(&with_tools()).expect("a prompt");
            read(&rendered, family.called);
            assert!(chat.render(&bad).is_err());
        }
    };
    round();
    let before = resident_kib();
    (0..4).for_each(|_| round());
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} KiB more after 1,000 renders");
}
