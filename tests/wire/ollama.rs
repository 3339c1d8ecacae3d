//! Ollama's routes: lines of JSON, options, models, and what is refused.

use axum::{body::Body, http::Request};
use llm_server::engine::{
    model::{About, Fim},
    task::Pooling,
};
use serde_json::{Value, json};

use crate::support::{PANIC, Reader, Server, Setup, key, refusals, text, value, with};

/// An answer without its moments and durations, which are there.
fn steady(mut answer: Value) -> Value {
    for name in ["created_at", "modified_at"] {
        if let Some(moment) = answer.get_mut(name) {
            let told = moment.as_str().unwrap();
            assert!(told.ends_with('Z') && told.as_bytes()[10] == b'T', "{told}");
            *moment = "NOW".into();
        }
    }
    for name in [
        "total_duration",
        "load_duration",
        "prompt_eval_duration",
        "eval_duration",
    ] {
        if let Some(duration) = answer.get_mut(name) {
            assert!(duration.is_u64());
            *duration = "NS".into();
        }
    }
    answer
}

fn lines(stream: &str) -> String {
    let lines = stream
        .lines()
        .map(|line| steady(serde_json::from_str(line).unwrap()).to_string());
    lines.collect::<Vec<_>>().join("\n")
}

fn hello(more: Value) -> Value {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    with(json!({"model": "org/fake", "messages": messages}), more)
}

#[tokio::test]
async fn a_chat_is_a_stream_of_lines_unless_told_otherwise() {
    let server = Server::ready();
    let response = server.post("/api/chat", hello(json!({}))).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    insta::assert_snapshot!(lines(&text(response).await), @r#"
    {"model":"org/fake","created_at":"NOW","message":{"role":"assistant","content":"H"},"done":false}
    {"model":"org/fake","created_at":"NOW","message":{"role":"assistant","content":"i"},"done":false}
    {"model":"org/fake","created_at":"NOW","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":"NS","load_duration":"NS","prompt_eval_count":3,"prompt_eval_duration":"NS","eval_count":3,"eval_duration":"NS"}
    "#);
    let whole = value(
        server
            .post("/api/chat", hello(json!({"stream": false})))
            .await,
    )
    .await;
    insta::assert_snapshot!(steady(whole).to_string(), @r#"{"model":"org/fake","created_at":"NOW","message":{"role":"assistant","content":"Hi"},"done":true,"done_reason":"stop","total_duration":"NS","load_duration":"NS","prompt_eval_count":3,"prompt_eval_duration":"NS","eval_count":3,"eval_duration":"NS"}"#);
}

#[tokio::test]
async fn a_prompt_is_answered_through_the_template_or_continued_as_it_is() {
    let server = Server::ready();
    let ask = |more: Value| {
        let mut body = json!({"model": "org/fake:latest", "stream": false});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let response = server.post("/api/generate", body);
        async { steady(value(response.await).await).to_string() }
    };
    let told = [
        ask(json!({"prompt": "abc", "system": "Be brief."})).await,
        ask(json!({"prompt": "abc\n", "raw": true, "options": {"num_predict": 2}})).await,
        ask(json!({"prompt": "abc\n", "raw": true, "logprobs": true, "top_logprobs": 1, "options": {"num_predict": 1}})).await,
    ];
    insta::assert_snapshot!(told.join("\n"), @r#"
    {"model":"org/fake:latest","created_at":"NOW","response":"abc","done":true,"done_reason":"stop","total_duration":"NS","load_duration":"NS","prompt_eval_count":14,"prompt_eval_duration":"NS","eval_count":4,"eval_duration":"NS","context":[66,101,32,98,114,105,101,102,46,10,97,98,99,10,97,98,99]}
    {"model":"org/fake:latest","created_at":"NOW","response":"ab","done":true,"done_reason":"length","total_duration":"NS","load_duration":"NS","prompt_eval_count":4,"prompt_eval_duration":"NS","eval_count":2,"eval_duration":"NS"}
    {"model":"org/fake:latest","created_at":"NOW","response":"a","done":true,"logprobs":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]}]}],"done_reason":"length","total_duration":"NS","load_duration":"NS","prompt_eval_count":4,"prompt_eval_duration":"NS","eval_count":1,"eval_duration":"NS"}
    "#);
}

#[tokio::test]
async fn a_suffix_is_what_follows_the_gap() {
    let fim = Fim {
        prefix: Some(1),
        suffix: Some(2),
        middle: Some(10),
        ..Fim::default()
    };
    let server = Setup {
        fim,
        ..Setup::default()
    }
    .start();
    let body = json!({"model": "org/fake", "prompt": "a", "suffix": "b", "stream": false});
    let answer = value(server.post("/api/generate", body.clone()).await).await;
    assert_eq!(answer["response"], "\u{1}a\u{2}b");
    let error = value(Server::ready().post("/api/generate", body).await).await;
    insta::assert_snapshot!(error.to_string(), @r#"{"error":"the model served here cannot fill a gap: its vocabulary has no token for prefix, suffix, middle"}"#);
}

#[tokio::test]
async fn a_request_that_says_nothing_finds_the_model_loaded() {
    let server = Server::ready();
    for (path, body, said) in [
        ("/api/chat", json!({"model": "org/fake"}), "message"),
        (
            "/api/chat",
            json!({"model": "org/fake", "messages": [], "keep_alive": "5m"}),
            "message",
        ),
        (
            "/api/generate",
            json!({"model": "org/fake", "keep_alive": -1}),
            "response",
        ),
        (
            "/api/generate",
            json!({"model": "org/fake", "prompt": ""}),
            "response",
        ),
    ] {
        let answer = value(server.post(path, body).await).await;
        assert_eq!(
            (&answer["done"], &answer["done_reason"]),
            (&json!(true), &json!("load"))
        );
        assert!(answer.get(said).is_some());
    }
}

#[tokio::test]
async fn a_model_that_is_done_with_stays_and_says_so() {
    let server = Server::ready();
    for (path, wish) in [("/api/chat", json!(0)), ("/api/generate", json!("0s"))] {
        let body = json!({"model": "org/fake", "keep_alive": wish});
        let response = server.post(path, body).await;
        assert_eq!(
            response.headers()["x-warning"],
            "keep_alive: the model stays loaded"
        );
        assert_eq!(value(response).await["done_reason"], "unload");
    }
}

#[tokio::test]
async fn a_conversation_goes_on_from_the_context_that_an_answer_told() {
    let server = Server::ready();
    let ask = async |more: Value| {
        let body = json!({"model": "org/fake", "prompt": "abc", "stream": false});
        value(server.post("/api/generate", with(body, more)).await).await
    };
    let first = ask(json!({})).await;
    let tokens = |text: &str| Value::from(text.bytes().collect::<Vec<u8>>());
    assert_eq!(first["context"], tokens("abc\nabc"));
    let context = &first["context"];
    let second = ask(json!({"prompt": "de", "context": context})).await;
    // The model repeats the line it is in.
    assert_eq!(second["response"], "abcde");
    assert_eq!(second["prompt_eval_count"], "abc\nabcde\n".len());
    assert_eq!(second["context"], tokens("abc\nabcde\nabcde"));
    let streamed = with(
        json!({"model": "org/fake", "prompt": "de"}),
        json!({"context": context}),
    );
    let streamed = text(server.post("/api/generate", streamed).await).await;
    let last: Value = serde_json::from_str(streamed.lines().last().unwrap()).unwrap();
    assert_eq!(last["context"], second["context"]);
    assert!(ask(json!({"raw": true})).await.get("context").is_none());
    for wrong in [
        json!({"context": context, "raw": true}),
        json!({"context": [258]}),
        json!({"context": ["a"]}),
        json!({"context": [-1]}),
        json!({"context": vec![97; 300]}),
    ] {
        let error = ask(wrong).await;
        let error = error["error"].as_str().unwrap();
        assert!(error.contains("context"), "{error}");
    }
}

#[tokio::test]
async fn what_is_served_is_told_under_each_of_its_names() {
    let server = Setup {
        aliases: vec!["small:1b".to_owned()],
        plan: json!({"devices": [{"name": "CUDA0", "used": 7}, {"name": "host", "used": 5}]}),
        about: About {
            architecture: "llama".to_owned(),
            parameters: 134_515_008,
            bytes: 100,
            quantization: "Q4_K - Medium".to_owned(),
            trained_context: 8192,
            width: 576,
            vocabulary: 258,
            vocabulary_type: 2,
        },
        ..Setup::default()
    }
    .start();
    let mut told = Vec::new();
    for path in ["/api/tags", "/api/ps", "/api/version"] {
        let version = concat!("llm-server ", env!("CARGO_PKG_VERSION"));
        let answer = text(server.get(path).await).await;
        told.push(answer.replace(version, "llm-server VERSION"));
    }
    let show = |body: Value| server.post("/api/show", body);
    let shown = text(show(json!({"model": "small:1b"})).await).await;
    let older = text(show(json!({"name": "org/fake"})).await).await;
    assert_eq!(shown.replace("small:1b", "org/fake"), older);
    told.push(shown);
    insta::assert_snapshot!(told.join("\n"), @r#"
    {"models":[{"name":"org/fake:latest","model":"org/fake:latest","size":100,"digest":"","details":{"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"134.52M","quantization_level":"Q4_K_M","context_length":256,"embedding_length":576},"modified_at":"2023-11-14T22:13:20Z","capabilities":["completion","tools"]},{"name":"small:1b","model":"small:1b","size":100,"digest":"","details":{"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"134.52M","quantization_level":"Q4_K_M","context_length":256,"embedding_length":576},"modified_at":"2023-11-14T22:13:20Z","capabilities":["completion","tools"]}]}
    {"models":[{"name":"org/fake:latest","model":"org/fake:latest","size":100,"digest":"","details":{"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"134.52M","quantization_level":"Q4_K_M","context_length":256,"embedding_length":576},"expires_at":"9999-12-31T23:59:59Z","size_vram":7,"context_length":256},{"name":"small:1b","model":"small:1b","size":100,"digest":"","details":{"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"134.52M","quantization_level":"Q4_K_M","context_length":256,"embedding_length":576},"expires_at":"9999-12-31T23:59:59Z","size_vram":7,"context_length":256}]}
    {"version":"0.33.0","server":"llm-server VERSION"}
    {"modelfile":"FROM small:1b\n# The server's configuration file sets it, models.lock pins it.\n","parameters":"num_ctx 256","template":"{% for message in messages %}{{ message.content }}{{ '\\n' }}{% endfor %}","details":{"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"134.52M","quantization_level":"Q4_K_M","context_length":256,"embedding_length":576},"model_info":{"general.architecture":"llama","general.basename":"org/fake","general.parameter_count":134515008,"llama.context_length":256,"llama.embedding_length":576,"llama.vocab_size":258},"capabilities":["completion","tools"],"modified_at":"2023-11-14T22:13:20Z"}
    "#);
}

async fn told(server: &Server, method: &str, path: &str, body: String) -> String {
    let request = Request::builder().method(method).uri(path);
    let response = server.send(request.body(Body::from(body)).unwrap()).await;
    let status = response.status().as_u16();
    format!("{method} {path}: {status} {}", text(response).await)
}

#[tokio::test]
async fn whatever_fails_is_told_in_ollamas_shape() {
    let locked = Setup {
        keys: vec![key("sk-1")],
        ..Setup::default()
    }
    .start();
    let server = Server::ready();
    let mut all = Vec::new();
    for (server, path) in [
        (&locked, "/api/tags"),
        (&server, "/api/nonsense"),
        (&server, "/api/chat"),
    ] {
        all.push(told(server, "GET", path, String::new()).await);
    }
    all.push(told(&server, "POST", "/api/chat", "{".to_owned()).await);
    let said = |content: &str| hello(json!({"messages": [{"role": "user", "content": content}]}));
    for body in [
        hello(json!({"model": "other"})),
        hello(json!({"model": ""})),
        said(PANIC),
        said(&"a".repeat(300)),
    ] {
        all.push(told(&server, "POST", "/api/chat", body.to_string()).await);
    }
    let shown = json!({"model": "x:latest"}).to_string();
    all.push(told(&server, "POST", "/api/show", shown).await);
    let embedded = json!({"model": "org/fake", "input": "a"}).to_string();
    all.push(told(&server, "POST", "/api/embed", embedded).await);
    insta::assert_snapshot!(all.join("\n"), @r#"
    GET /api/tags: 401 {"error":"an API key is required: send it as `Authorization: Bearer KEY` or in the header `x-api-key`"}
    GET /api/nonsense: 404 {"error":"there is no GET /api/nonsense here"}
    GET /api/chat: 405 {"error":"/api/chat does not answer to GET"}
    POST /api/chat: 400 {"error":"the body is not valid JSON: EOF while parsing an object at line 1 column 1"}
    POST /api/chat: 404 {"error":"model 'other' not found"}
    POST /api/chat: 400 {"error":"model is required"}
    POST /api/chat: 500 {"error":"the server failed to answer this request"}
    POST /api/chat: 400 {"error":"This model's maximum context length is 256 tokens. However, your messages resulted in 301 tokens. Please reduce the length of the messages."}
    POST /api/show: 404 {"error":"model 'x:latest' not found"}
    POST /api/embed: 400 {"error":"the model served here generates text and cannot embed: that needs an embedding model (model.kind = 'embedding takes vectors out of any model)"}
    "#);
}

#[tokio::test]
async fn what_would_change_the_models_is_refused_with_what_to_do_instead() {
    let server = Server::ready();
    let mut all = Vec::new();
    for (method, path) in [
        ("POST", "/api/pull"),
        ("POST", "/api/push"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("DELETE", "/api/delete"),
    ] {
        let body = json!({"model": "llama3"}).to_string();
        all.push(told(&server, method, path, body).await);
    }
    insta::assert_snapshot!(all.join("\n"), @r#"
    POST /api/pull: 400 {"error":"cannot pull 'llama3': this server serves 'org/fake' only; models are pinned in models.lock with `llm-server models add` and chosen in its configuration file"}
    POST /api/push: 400 {"error":"models are not pushed: models.lock says where the file comes from"}
    POST /api/create: 400 {"error":"models are not created here: pin a GGUF file in models.lock with `llm-server models add`"}
    POST /api/copy: 400 {"error":"models are not copied: other names of the model are set in the configuration file (model.aliases)"}
    DELETE /api/delete: 400 {"error":"models are not deleted over HTTP: take the entry out of models.lock"}
    "#);
    let pulled = server.post("/api/pull", json!({"model": "org/fake"})).await;
    assert_eq!(text(pulled).await, r#"{"status":"success"}"#);
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_the_callers_name() {
    let server = Server::ready();
    let chats = [
        json!({"options": {"temperature": 9}}),
        json!({"options": {"num_predict": 0}}),
        json!({"options": {"num_ctx": 257}}),
        json!({"options": {"num_gpu": 3}}),
        json!({"options": {"stop": [1]}}),
        json!({"think": true}),
        json!({"think": "hard"}),
        json!({"format": "xml"}),
        json!({"format": {"type": "object", "properties": 1}}),
        json!({"stream": "yes"}),
        json!({"keep_alive": []}),
        json!({"top_logprobs": 3}),
        json!({"messages": [{"role": "user", "content": "a", "images": ["aGk="]}]}),
        json!({"messages": [{"role": "king", "content": "a"}]}),
        json!({"tools": [{"function": {}}]}),
        json!({"_debug_render_only": true}),
    ];
    let chat = async |wish| server.post("/api/chat", hello(wish)).await;
    let plain = [
        json!({"template": "{{ .Prompt }}"}),
        json!({"images": ["aGk="]}),
        json!({"images": ["aGk="], "raw": true}),
        json!({"raw": true, "system": "x"}),
    ];
    let generate = async |wish| {
        let body = with(json!({"model": "org/fake", "prompt": "a"}), wish);
        server.post("/api/generate", body).await
    };
    let told = [refusals(chat, chats).await, refusals(generate, plain).await];
    insta::assert_snapshot!(told.join("\n"), @r#"
    400 | options.temperature: expected a number from 0 to 5, got 9
    400 | options.num_predict: expected an integer of at least 1, or -1 for no limit, got 0
    400 | options.num_ctx: expected at most 256, the context that is configured (engine.context), got 257
    400 | options.num_gpu: set in the server's configuration (engine.placement); leave it out
    400 | options.stop: expected a string that is not empty, or an array of at most 64 such strings, got an array of 1
    400 | think: "org/fake" does not support thinking
    400 | think: expected true, false, "low", "medium", "high" or "max", got "hard"
    400 | format: expected "json" or a JSON schema, got "xml"
    400 | format#/properties: properties must be an object
    400 | stream: expected true or false, got "yes"
    400 | keep_alive: expected seconds, or a duration such as "5m", got an array of 0
    400 | top_logprobs: only together with `logprobs: true`
    400 | messages[0].images[0]: this model takes no images
    400 | messages[0].role: expected one of ["system", "developer", "user", "assistant", "tool"], got "king"
    400 | tools[0].function.name: expected a string of 1 to 256 bytes, got nothing
    400 | _debug_render_only: not supported, for /apply-template shows the prompt of a chat
    400 | template: not supported, for it is set in the server's configuration (model.chat_template)
    400 | images[0]: this model takes no images
    400 | images: not together with raw or suffix, which have no place for them
    400 | system: not together with raw or suffix, which use no template
    "#);
}

#[tokio::test]
async fn what_means_off_is_let_pass_and_what_has_no_effect_is_told() {
    let server = Server::ready();
    let body = hello(json!({
        "stream": false, "format": "", "keep_alive": "10m", "tools": [], "think": false, "truncate": true, "shift": true,
        "logprobs": false, "top_logprobs": 0, "options": {"num_ctx": 256, "num_keep": 4, "num_gpu": -1, "seed": 1},
    }));
    let response = server.post("/api/chat", body).await;
    assert_eq!(response.status(), 200);
    let warnings: Vec<_> = response.headers().get_all("x-warning").iter().collect();
    assert_eq!(
        warnings,
        ["options.num_keep: a context that is full is not shifted"]
    );
}

#[tokio::test]
async fn texts_become_vectors_of_length_one() {
    let reader = Reader::ready(Pooling::Mean);
    let embed = |body: Value| {
        let response = reader.post("/api/embed", body);
        async { value(response.await).await }
    };
    let both = embed(json!({"model": "org/fake", "input": ["ab", "c"]})).await;
    let one = embed(json!({"model": "org/fake", "input": "c", "keep_alive": 0})).await;
    assert_eq!(both["embeddings"][1], one["embeddings"][0]);
    assert_eq!(one["model"], "org/fake");
    assert_eq!(both["prompt_eval_count"], 3);
    let old = reader
        .post(
            "/api/embeddings",
            json!({"model": "org/fake", "prompt": "c"}),
        )
        .await;
    assert_eq!(value(old).await["embedding"], one["embeddings"][0]);
    assert_eq!(
        embed(json!({"model": "org/fake", "input": []})).await["embeddings"],
        json!([])
    );
    let none = reader
        .post(
            "/api/embeddings",
            json!({"model": "org/fake", "prompt": ""}),
        )
        .await;
    assert_eq!(text(none).await, r#"{"embedding":[]}"#);
    let refused = embed(json!({"model": "org/fake", "input": [1]})).await;
    assert_eq!(
        refused["error"],
        "input: expected a string, or an array of at most 2048 strings, got an array of 1"
    );
}

#[tokio::test]
async fn a_text_that_is_too_long_to_embed_is_cut_unless_forbidden() {
    let reader = Reader::ready(Pooling::Mean);
    let body = |truncate: bool| json!({"model": "org/fake", "input": "a".repeat(5000), "truncate": truncate});
    let cut = reader.post("/api/embed", body(true)).await;
    let warned = cut.headers()["x-warning"].to_str().unwrap().to_owned();
    assert!(
        warned.starts_with("input[0]: cut from 5000 to "),
        "{warned}"
    );
    assert_eq!(cut.status(), 200);
    let refused = reader.post("/api/embed", body(false)).await;
    assert_eq!(refused.status(), 400);
}
