//! The models' own templates, which we may not carry: run with their folder in `LLM_SERVER_TEMPLATES`
//! (`models/templates` of a llama.cpp checkout) and `--run-ignored only`.

use std::{env, fs, time::Instant};

use llm_server::chat::{Chat, Parser};
use serde_json::json;

use super::families::{family, plain, read_every_way, tools, with_tools};

fn templates() -> Vec<(String, String)> {
    let folder = env::var("LLM_SERVER_TEMPLATES")
        .expect("LLM_SERVER_TEMPLATES: set it to models/templates of a llama.cpp checkout");
    let mut found: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{folder}: {e}"))
        .map(|entry| entry.expect("a folder entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "jinja"))
        .map(|path| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let text = fs::read_to_string(&path).expect("UTF-8");
            (name.into_owned(), text)
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no *.jinja in {folder}");
    found
}

#[test]
#[ignore = "needs the models' own templates"]
fn every_template_initialises_renders_and_reads_plain_text_back() {
    for (name, source) in templates() {
        let began = Instant::now();
        let chat =
            Chat::from_template(&source, "<s>", "</s>").unwrap_or_else(|e| panic!("{name}: {e}"));
        let made = began.elapsed();
        let can = chat.capabilities();
        let began = Instant::now();
        let rendered = chat
            .render(&plain())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let plainly = began.elapsed();
        assert!(rendered.prompt.contains("Hi"), "{name}");
        read_every_way(&name, &rendered, "A word, <b>bold</b>.\n{\"a\": 1}");
        let began = Instant::now();
        let with_tools = chat
            .render(&with_tools())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let tooled = began.elapsed();
        assert_eq!(
            with_tools.warnings.is_empty(),
            can.tool_calls && can.describes_tools,
            "{name}"
        );
        read_every_way(&name, &with_tools, "A word, <b>bold</b>.\n{\"a\": 1}");
        let mut required = json!({"messages": plain()["messages"], "tools": tools()});
        required["tool_choice"] = json!("required");
        assert_eq!(chat.render(&required).is_ok(), can.tool_calls, "{name}");
        println!("{name:60} {made:>10.1?} {plainly:>10.1?} {tooled:>10.1?} {can:?}");
    }
}

#[test]
#[ignore = "needs the models' own templates"]
fn answers_of_a_family_are_read_with_its_models_own_template() {
    let all = templates();
    let source = |name: &str| {
        let found = all.iter().find(|(file, _)| file == name);
        &found.unwrap_or_else(|| panic!("no {name}.jinja")).1
    };
    for (file, name) in [
        ("Qwen-Qwen3-0.6B", "qwen3"),
        ("Qwen-Qwen2.5-7B-Instruct", "qwen3"),
        ("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "qwen3"),
        ("Qwen3-Coder", "qwen3-coder"),
        ("Qwen3.5-4B", "qwen3-coder"),
        ("meta-llama-Llama-3.1-8B-Instruct", "llama3"),
        ("meta-llama-Llama-3.3-70B-Instruct", "llama3"),
        ("mistralai-Mistral-Nemo-Instruct-2407", "mistral"),
        ("deepseek-ai-DeepSeek-V3.1", "deepseek"),
        ("openai-gpt-oss-120b", "harmony"),
        ("google-gemma-4-31B-it", "gemma"),
        ("GLM-4.6", "glm"),
        ("CohereForAI-c4ai-command-r7b-12-2024-tool_use", "command-r"),
    ] {
        let chat = Chat::from_template(source(file), "<s>", "</s>").expect("a template");
        let can = chat.capabilities();
        let rendered = chat
            .render(&with_tools())
            .unwrap_or_else(|e| panic!("{file}: {e}"));
        let mut answer = family(name).called.expect("it calls").to_owned();
        if !rendered.prompt.trim_end().ends_with("<think>") {
            answer = answer
                .trim_start_matches("</think>")
                .trim_start()
                .to_owned();
        }
        let message = read_every_way(file, &rendered, &answer);
        assert_eq!(message.calls.len(), 1, "{file}: {message:?} of {answer}");
        let Some(thought) = family(name).thought.filter(|_| can.thinking) else {
            continue;
        };
        let rendered = chat
            .render(&plain())
            .unwrap_or_else(|e| panic!("{file}: {e}"));
        let message = read_every_way(file, &rendered, thought);
        assert!(
            message.reasoning.contains("greets me"),
            "{file}: {message:?}"
        );
        assert!(
            message.content.trim().starts_with("Hello"),
            "{file}: {message:?}"
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn what_a_render_and_a_push_cost() {
    for (label, name) in [
        ("SmolLM2-like", "chatml"),
        ("Qwen3", "qwen3"),
        ("Qwen3.5-like", "qwen3-coder"),
    ] {
        let family = family(name);
        let chat = family.chat();
        for (what, request) in [("plain", plain()), ("2 tools", with_tools())] {
            let began = Instant::now();
            for _ in 0..200 {
                chat.render(&request).expect("a prompt");
            }
            let render = began.elapsed() / 200;
            let rendered = chat.render(&request).expect("a prompt");
            let began = Instant::now();
            for _ in 0..200 {
                Parser::new(&rendered).expect("a parser");
            }
            let new = began.elapsed() / 200;
            let mut parser = Parser::new(&rendered).expect("a parser");
            parser.push("<think>\n");
            let (mut per_push, mut sizes) = (Vec::new(), Vec::new());
            for _ in 0..4 {
                let began = Instant::now();
                for _ in 0..1000 {
                    parser.push("word ");
                }
                per_push.push(began.elapsed() / 1000);
                sizes.push(5);
            }
            println!(
                "{label} {what}: render {render:?}, parser {new:?}, push over 5, 10, 15, 20 kB {per_push:?}"
            );
        }
    }
}
