//! The configuration: what is accepted, what is refused, and in which words.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use llm_server::config::{
    self, Config, ConfigError, GpuLayers, KnownModel, KvType, Listen, Source, load,
};

const MODEL: &str = r#"model.name = "small""#;

fn models() -> Vec<KnownModel> {
    let known = |name: &str, trained_context| KnownModel {
        name: name.into(),
        trained_context,
    };
    vec![
        known("large-35b", Some(262_144)),
        known("small", Some(8192)),
        known("strange", None),
    ]
}

fn with(source: &Source, overrides: &[&str]) -> Result<Config, ConfigError> {
    let overrides: Vec<_> = overrides.iter().map(ToString::to_string).collect();
    load(source, &overrides, &models())
}

fn nickel(text: &str) -> Result<Config, ConfigError> {
    with(&Source::new("config.ncl", text), &[])
}

fn json(text: &str) -> Result<Config, ConfigError> {
    with(&Source::new("config.json", text), &[])
}

/// The default configuration of the model `small` under overrides.
fn set(overrides: &[&str]) -> Result<Config, ConfigError> {
    with(
        &Source::new("config.ncl", format!("{{ {MODEL} }}")),
        overrides,
    )
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ConfigError>) -> String {
    result.expect_err("must be refused").to_string()
}

macro_rules! refused {
    ($($name:ident: $result:expr,)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(refusal($result));
        }
    )*};
}

refused! {
    an_unknown_section_is_refused_with_the_known_ones: nickel("{\n  model.name = \"small\",\n  enginee.context = 4096,\n}"),
    an_unknown_field_is_refused_with_the_nearest: nickel("{\n  model.name = \"small\",\n  engine.contxt = 4096,\n}"),
    a_text_is_not_a_number: nickel("{\n  model.name = \"small\",\n  engine.context = \"4096\",\n}"),
    a_number_is_not_a_section: nickel("{ model.name = \"small\", engine = 3 }"),
    a_number_is_not_a_configuration: nickel("3"),
    a_number_out_of_range_is_refused: nickel("{ model.name = \"small\", engine.parallel = 257 }"),
    a_fraction_of_a_sequence_is_refused: nickel("{ model.name = \"small\", engine.parallel = 1.5 }"),
    a_negative_number_is_refused: nickel("{ model.name = \"small\", limits.queue = -1 }"),
    a_number_beyond_64_bits_is_refused: nickel("{ model.name = \"small\", limits.body_bytes = 1e30 }"),
    a_time_of_nearly_zero_is_refused: nickel("{ model.name = \"small\", limits.request = 1e-30 }"),
    nan_is_no_number_of_the_language: nickel("{ model.name = \"small\", limits.request = NaN }"),
    an_unknown_tag_is_refused_with_the_known_ones: nickel("{ model.name = \"small\", engine.kv.k = 'q9_0 }"),
    an_adapter_with_an_unknown_field_is_pointed_at: nickel("{ model = { name = \"small\", adapters = [{ name = \"strange\", weight = 2 }] } }"),
    an_adapter_that_is_not_in_the_lock_is_refused: nickel("{ model = { name = \"small\", adapters = [{ name = \"stranger\" }] } }"),
    an_adapter_named_twice_is_refused: nickel("{ model = { name = \"small\", adapters = [{ name = \"strange\" }, { name = \"strange\", scale = 0 }] } }"),
    an_adapter_called_as_the_model_is_refused: nickel("{ model = { name = \"small\", adapters = [{ name = \"strange\", alias = \"small\" }] } }"),
    an_adapter_of_an_embedding_model_is_refused: nickel("{ model = { name = \"small\", kind = 'embedding, adapters = [{ name = \"strange\" }] } }"),
    a_shifting_context_is_not_reproducible: nickel("{ model.name = \"small\", engine = { overflow = 'shift, reproducible = true } }"),
    a_tag_with_an_argument_is_refused: nickel("{ model.name = \"small\", engine.load = 'mmap 3 }"),
    a_wrong_element_of_a_list_is_pointed_at: nickel("{ model.name = \"small\", auth.key_files = [\"keys\", 7] }"),
    a_host_name_is_refused: nickel("{ model.name = \"small\", listen = \"example.org:80\" }"),
    a_log_level_that_nobody_knows_is_refused: nickel("{ model.name = \"small\", log.level = \"loud\" }"),
    a_configuration_without_a_model_is_refused: nickel("{\n  listen = \"127.0.0.1:8080\",\n}"),
    a_model_outside_the_lock_is_refused_with_the_nearest: nickel("{ model.name = \"smal-l\" }"),
    a_quantized_value_cache_without_flash_attention_is_refused:
        nickel("{\n  model.name = \"small\",\n  engine = { kv.v = 'q8_0, flash_attention = 'off },\n}"),
    a_ubatch_above_the_batch_is_refused: nickel("{ model.name = \"small\", engine = { batch = 512, ubatch = 1024 } }"),
    a_batch_below_the_default_ubatch_is_pointed_at: nickel("{ model.name = \"small\", engine.batch = 256 }"),
    a_batch_below_the_sequences_is_refused:
        nickel("{ model.name = \"small\", engine = { parallel = 64, batch = 32, ubatch = 32 } }"),
    a_context_above_the_trained_one_is_refused: nickel("{ model.name = \"small\", engine.context = 16384 }"),
    a_cache_of_too_many_tokens_is_refused:
        nickel("{ model.name = \"strange\", engine = { context = 1048576, parallel = 17 } }"),
    a_public_listener_without_keys_is_refused: nickel("{ model.name = \"small\", listen = \"0.0.0.0:8080\" }"),
    a_public_ipv6_listener_without_keys_is_refused: nickel("{ model.name = \"small\", listen = \"[::]:8080\" }"),
    a_key_with_an_unknown_right_is_pointed_at: nickel("{\n  model.name = \"small\",\n  auth.keys = [{ name = \"a\", file = \"a\" }, { name = \"b\", file = \"b\", admin = true }],\n}"),
    a_default_that_is_no_parameter_is_refused: set(&["model.defaults = {temprature = 1}"]),
    an_origin_with_a_path_is_refused: nickel("{ model.name = \"small\", cors.origins = [\"https://a.example/chat\"] }"),
    an_override_of_an_unknown_field_is_pointed_at: set(&["limits.queue = 3", "engine.contxt = 3"]),
    an_override_out_of_range_is_pointed_at: set(&["engine = {parallel = 2, context = 3}"]),
    an_override_that_breaks_a_rule_is_pointed_at: set(&["engine.context = 16384"]),
    an_override_without_a_value_is_refused: set(&["engine.context"]),
    an_override_that_is_not_nickel_is_refused: set(&["listen = 127.0.0.1:80"]),
    an_override_of_an_unbound_name_is_refused: set(&["engine.flash_attention = on"]),
    an_unknown_field_of_json_is_refused: json("{\n  \"model\": {\"name\": \"small\"},\n  \"engine\": {\"contxt\": 1}\n}"),
    an_unknown_tag_of_json_is_refused: json("{\"model\": {\"name\": \"small\"}, \"engine\": {\"load\": \"map\"}}"),
    text_that_is_not_json_is_refused: json("{\n  \"model\": {name: 1}}"),
    a_number_of_a_billion_digits_is_refused: json("{\"model\": {\"name\": \"small\"}, \"limits\": {\"queue\": 1e999999999}}"),
    json_nested_without_end_is_refused: json(&"[".repeat(100_000)),
    nickel_nested_without_end_is_refused: nickel(&"[".repeat(100_000)),
    nickel_that_does_not_end_is_refused: nickel("{ model.name = \"small\""),
    a_configuration_that_needs_itself_is_refused: nickel("{ model.name = \"small\", engine = { batch = ubatch, ubatch = batch } }"),
    an_import_that_is_not_there_is_refused: nickel("import \"nowhere.ncl\""),
}

#[test]
fn the_defaults_are_these() {
    let config = set(&[]).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&config).unwrap());
}

#[test]
fn the_built_in_configuration_is_the_file_at_the_top() {
    let known = [KnownModel {
        name: "smollm2-135m-instruct".into(),
        trained_context: Some(8192),
    }];
    let built_in = load(&Source::built_in(), &[], &known).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.ncl");
    assert_eq!(
        built_in,
        load(&Source::read(&path).unwrap(), &[], &known).unwrap()
    );
    assert_eq!(built_in.listen, Listen::Tcp(([127, 0, 0, 1], 8080).into()));
}

#[test]
fn an_override_wins_over_the_file_and_the_file_over_the_default() {
    let file = Source::new(
        "config.ncl",
        "{ model.name = \"small\", engine = { context = 1024, parallel = 2 } }",
    );
    let config = with(&file, &["engine.context = 2048"]).unwrap();
    assert_eq!(
        (
            config.engine.context,
            config.engine.parallel,
            config.engine.batch
        ),
        (2048, 2, 2048)
    );
}

#[test]
fn an_override_of_a_section_leaves_its_other_fields_alone() {
    let file = Source::new(
        "config.ncl",
        "{ model.name = \"small\", engine = { context = 1024, kv.k = 'q8_0 } }",
    );
    let config = with(&file, &["engine = {parallel = 2, kv = {v = 'q4_0}}"]).unwrap();
    assert_eq!((config.engine.context, config.engine.parallel), (1024, 2));
    assert_eq!(
        (config.engine.kv.k, config.engine.kv.v),
        (KvType::Q8_0, KvType::Q4_0)
    );
}

#[test]
fn the_last_of_two_overrides_wins() {
    let config = set(&[
        "engine.context = 512",
        "engine = {context = 1024}",
        "engine.context = 2048 # really",
    ])
    .unwrap();
    assert_eq!(config.engine.context, 2048);
}

#[test]
fn an_override_wins_over_json() {
    let file = Source::new(
        "config.json",
        r#"{"model": {"name": "small"}, "engine": {"context": 1024}}"#,
    );
    assert_eq!(
        with(&file, &["engine.context = 2048"])
            .unwrap()
            .engine
            .context,
        2048
    );
}

#[test]
fn values_computed_from_an_overridden_one_follow_it() {
    let file = Source::new(
        "config.ncl",
        "{ model.name = \"small\", engine = { batch = 64, ubatch = batch } }",
    );
    let config = with(&file, &["engine.batch = 128"]).unwrap();
    assert_eq!((config.engine.batch, config.engine.ubatch), (128, 128));
}

#[test]
fn an_override_replaces_a_list() {
    let file = Source::new(
        "config.ncl",
        "{ model = { name = \"small\", aliases = [\"a\", \"b\"] } }",
    );
    assert_eq!(
        with(&file, &[r#"model.aliases = ["c"]"#])
            .unwrap()
            .model
            .aliases,
        ["c"]
    );
}

#[test]
fn tags_may_be_strings() {
    let text = r#"{"model": {"name": "small", "chat_template": null}, "limits": {"max_tokens": "context"},
        "engine": {"kv": {"v": "q8_0"}, "flash_attention": "on", "threads": "auto", "placement": {"gpu_layers": "all"}}}"#;
    let config = json(text).unwrap();
    let engine = &config.engine;
    assert_eq!(
        (engine.kv.v, engine.threads, engine.placement.gpu_layers),
        (KvType::Q8_0, None, GpuLayers::All)
    );
    assert_eq!(
        (config.limits.max_tokens, config.model.chat_template),
        (None, None)
    );
}

#[test]
fn a_context_beyond_the_trained_one_is_accepted_when_asked_for() {
    let config = set(&["engine = {context = 16384, beyond_trained_context = true}"]).unwrap();
    assert_eq!(config.engine.context, 16384);
}

#[test]
fn a_context_is_not_bounded_when_the_trained_one_is_unknown() {
    let config = nickel("{ model.name = \"strange\", engine.context = 1048576 }").unwrap();
    assert_eq!(config.engine.context, 1_048_576);
}

#[test]
fn a_quantized_value_cache_goes_with_automatic_flash_attention() {
    assert_eq!(
        set(&["engine.kv.v = 'q4_0"]).unwrap().engine.kv.v,
        KvType::Q4_0
    );
}

#[test]
fn a_public_listener_with_keys_is_accepted() {
    let config = set(&["listen = \"0.0.0.0:80\"", "auth.key_files = [\"keys\"]"]).unwrap();
    assert_eq!(config.listen, Listen::Tcp(([0, 0, 0, 0], 80).into()));
}

#[test]
fn listeners_only_this_machine_reaches_need_no_keys() {
    for listen in [
        "localhost:1",
        "127.8.9.1:0",
        "[::1]:80",
        "[0:0:0:0:0:0:0:1]:80",
        "unix:/run/llm.sock",
    ] {
        let listen = format!("listen = \"{listen}\"");
        assert!(set(&[&listen]).is_ok(), "{listen}");
    }
}

#[test]
fn times_may_be_fractions_of_seconds() {
    let config = set(&["limits = {request = 0.25, drain = 90}"]).unwrap();
    assert_eq!(config.limits.request, Duration::from_millis(250));
    assert_eq!(config.limits.drain, Duration::from_secs(90));
}

#[test]
fn the_effective_configuration_is_itself_a_configuration() {
    let config = set(&[
        "engine = {threads = 3, placement.gpu_layers = 7, kv.k = 'bf16, load = 'mlock}",
        "limits = {max_tokens = 9, keep_alive = 0.1}",
        "model = {aliases = [\"*\"], chat_template = \"/t.jinja\"}",
    ])
    .unwrap();
    assert_eq!(json(&config.canonical_json()).unwrap(), config);
    let defaults = set(&[]).unwrap();
    assert_eq!(json(&defaults.canonical_json()).unwrap(), defaults);
}

#[test]
fn relative_paths_begin_at_the_file() {
    let text = "{ model = { name = \"small\", chat_template = \"t.jinja\" }, auth.key_files = [\"k\", \"/k\"] }";
    let config = with(&Source::new("/etc/llm/config.ncl", text), &[]).unwrap();
    assert_eq!(config.model.chat_template, Some("/etc/llm/t.jinja".into()));
    assert_eq!(
        config.auth.key_files,
        [PathBuf::from("/etc/llm/k"), PathBuf::from("/k")]
    );
}

#[test]
fn imports_are_relative_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a \"%{b}\".ncl");
    fs::create_dir(folder.path().join("shared")).unwrap();
    fs::write(
        folder.path().join("shared/base.ncl"),
        "{ model.name = \"small\" }",
    )
    .unwrap();
    fs::write(
        &path,
        "(import \"shared/base.ncl\") & { engine.parallel = 3 }",
    )
    .unwrap();
    assert_eq!(
        with(&Source::read(&path).unwrap(), &[])
            .unwrap()
            .engine
            .parallel,
        3
    );
}

#[test]
fn a_mark_of_byte_order_before_the_text_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("marked.ncl", "\u{feff}{ engine.parallel = 3 }"),
        ("marked.json", "\u{feff}{\"engine\": {\"parallel\": 3}}"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let source = Source::read(&path).unwrap();
        let config = with(&source, &["model.name = \"small\""]).unwrap();
        assert_eq!(config.engine.parallel, 3);
    }
}

#[test]
fn what_is_not_a_file_of_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let cases = [
        (folder.path().to_owned(), "is a directory"),
        (folder.path().join("missing.ncl"), "No such file"),
        (file("empty.ncl", b" \n"), "is empty"),
        (file("binary.ncl", b"{ \xff\xfe }"), "is not UTF-8"),
        (
            file("big.json", &vec![b' '; (1 << 20) + 1]),
            "is larger than 1 MiB",
        ),
        (PathBuf::from("/dev/null"), "is not a regular file"),
    ];
    for (path, expected) in cases {
        let error = refusal(Source::read(&path));
        assert!(
            error.contains(expected) && error.contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn a_refusal_has_colours_only_when_asked_for() {
    let error = nickel("3").unwrap_err();
    assert!(error.coloured().contains('\u{1b}'));
    assert!(!error.to_string().contains('\u{1b}'));
}

#[test]
fn any_text_is_a_string_of_the_language() {
    for text in ["plain", "\"", "\\", "%{x}", "%%{", "a\n\u{0}\u{7f}é", "'"] {
        let path = config::nickel_string(text);
        let template = format!("model.chat_template = {path}");
        match set(&[&template]) {
            Ok(config) => assert_eq!(config.model.chat_template, Some(text.into())),
            Err(error) => assert!(text.contains('\0'), "{error}"),
        }
    }
}

/// `LLM_SERVER_WRITE_DOCS=1` writes the table instead of comparing it.
#[test]
fn the_documented_options_are_those_of_the_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = fs::read_to_string(&path).unwrap();
    let begin = text.find("<!-- options:").unwrap();
    let begin = begin + text[begin..].find('\n').unwrap() + 1;
    let end = text.find("<!-- options end -->").unwrap();
    let table = config::markdown(&config::reference().unwrap());
    if env::var_os("LLM_SERVER_WRITE_DOCS").is_some() {
        fs::write(&path, format!("{}{table}{}", &text[..begin], &text[end..])).unwrap();
        return;
    }
    assert_eq!(
        &text[begin..end],
        table,
        "run the command in the comment above the table"
    );
}

/// The effective configuration holds every option, so it tells whether the reference does.
#[test]
fn the_reference_has_every_option() {
    fn paths(prefix: &str, value: &serde_json::Value, found: &mut Vec<String>) {
        match value.as_object() {
            Some(fields) if !fields.is_empty() => fields
                .iter()
                .for_each(|(name, value)| paths(&format!("{prefix}.{name}"), value, found)),
            // Also an option that holds a record of anything.
            _ => found.push(prefix[1..].to_owned()),
        }
    }
    let mut options = Vec::new();
    paths(
        "",
        &serde_json::to_value(set(&[]).unwrap()).unwrap(),
        &mut options,
    );
    let reference: Vec<_> = config::reference()
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(reference, options);
}

#[test]
fn every_option_refuses_what_its_type_does_not_say() {
    for option in config::reference().unwrap() {
        assert!(
            !option.kind.is_empty() && option.kind != "anything",
            "{option:?}"
        );
        assert!(option.doc.ends_with('.'), "{option:?}");
    }
}

/// What the commands read: the file, the lock and `--set` together.
mod configured {
    use llm_server::cli::{
        check,
        configured::{Configured, ConfiguredError},
    };

    use super::*;

    const LOCK: &str = r#"
        [small]
        source = "huggingface"
        repo = "someone/small"
        revision = "0123456789012345678901234567890123456789"
        file = "small.gguf"
        sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
        size = 144811904
        licence = "apache-2.0"
        trained_context = 8192
    "#;

    fn folder(config: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.ncl"), config).unwrap();
        fs::write(folder.path().join("models.lock"), LOCK).unwrap();
        folder
    }

    fn configured(folder: &Path) -> Configured {
        Configured {
            file: Some(folder.join("config.ncl")),
            ..Configured::default()
        }
    }

    #[test]
    fn the_summary_says_what_a_configuration_comes_to() {
        let folder = folder("{ model.name = \"small\", auth.key_files = [\"keys\"] }");
        let mut configured = configured(folder.path());
        configured
            .set
            .push("engine = {kv.v = 'q8_0, threads = 3, placement.gpu_layers = 'all}".into());
        configured
            .set
            .push("model = {aliases = [\"gpt-4o\", \"*\"], chat_template = \"t.jinja\"}".into());
        let summary = check::summary(&configured.load().unwrap());
        insta::assert_snapshot!(summary.replace(folder.path().to_str().unwrap(), "FOLDER"));
    }

    #[test]
    fn the_summary_names_the_keys_of_every_owner() {
        let folder = folder(
            "{ model.name = \"small\", auth.keys = [{ name = \"agents\", file = \"/keys\" }] }",
        );
        let summary = check::summary(&configured(folder.path()).load().unwrap());
        assert!(summary.contains("/keys (agents)"), "{summary}");
    }

    #[test]
    fn the_lock_beside_the_configuration_says_what_may_be_named() {
        let folder = folder("{ model.name = \"smollm2-135m-instruct\" }");
        let error = configured(folder.path()).load().unwrap_err().to_string();
        assert!(error.contains("models.lock has: small"), "{error}");
    }

    #[test]
    fn the_trained_context_comes_from_the_lock() {
        let folder = folder("{ model.name = \"small\", engine.context = 8193 }");
        let error = configured(folder.path()).load().unwrap_err().to_string();
        assert!(error.contains("more than the 8192 tokens"), "{error}");
    }

    #[test]
    fn a_model_file_is_served_under_its_own_name() {
        let folder = folder("{ engine.context = 100000 }");
        let mut configured = configured(folder.path());
        configured.model_file = Some("/weights/My \"own\" model.Q4.gguf".into());
        let loaded = configured.load().unwrap();
        assert_eq!(loaded.config.model.name, "My \"own\" model.Q4");
        assert_eq!(loaded.model_file, configured.model_file);
    }

    #[test]
    fn a_lock_that_is_not_there_is_refused() {
        let folder = folder("{ model.name = \"small\" }");
        let mut configured = configured(folder.path());
        configured.lock = Some(folder.path().join("nowhere.lock"));
        let error = configured.load().unwrap_err();
        assert!(
            matches!(error, ConfiguredError::Lock(_)) && error.to_string().contains("nowhere.lock"),
            "{error}"
        );
    }
}

mod properties {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    /// JSON that often has the names of real options, so that it gets past the first check.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (0..5000_u32).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            prop::sample::select(vec!["small", "auto", "off", "q8_0", "0.0.0.0:1", "[::1]:1"])
                .prop_map(Value::from),
        ];
        let names = vec![
            "listen",
            "model",
            "name",
            "aliases",
            "chat_template",
            "engine",
            "context",
            "parallel",
            "kv",
            "k",
            "v",
            "flash_attention",
            "threads",
            "batch",
            "ubatch",
            "limits",
            "queue",
            "request",
            "auth",
            "key_files",
            "log",
            "level",
            "",
            "import",
            "%{x}",
        ];
        leaf.prop_recursive(4, 40, 8, move |inner| {
            let name = prop::sample::select(names.clone()).prop_map(str::to_owned);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name, inner), 0..8)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_json_makes_the_loader_panic(value in any_json(), engine in any_json(), name in "small|[a-z]*") {
            let _ = json(&value.to_string());
            let near = serde_json::json!({"model": {"name": name}, "engine": engine});
            if let Ok(config) = json(&near.to_string()) {
                prop_assert_eq!(json(&config.canonical_json()).unwrap(), config);
            }
        }

        #[test]
        fn no_override_makes_the_loader_panic(text in r#"(engine|model|limits)?[.={}\[\]"'%# a-z0-9]{0,20}"#) {
            let _ = set(&[&text]);
        }

        #[test]
        fn schema_and_program_agree_about_addresses(
            listen in r"(\[[0-9a-f:]{2,12}\]|\[([0-9a-f]{1,4}:){0,7}:?([0-9a-f]{1,4}:){0,7}[0-9a-f]{0,5}\]|([0-9]{1,3}\.){3}[0-9]{1,3}|localhost|::1|unix:/?[a-z]?)(:[0-9]{0,5})?",
        ) {
            let listen_set = format!("listen = {}", config::nickel_string(&listen));
            let accepted = set(&[&listen_set, "auth.key_files = [\"k\"]"]);
            match (accepted, listen.parse::<Listen>()) {
                (Ok(config), Ok(parsed)) => prop_assert_eq!(config.listen, parsed),
                (Err(ConfigError::Refused { .. }), Err(_)) => {}
                (other, parsed) => prop_assert!(false, "{listen}: {other:?}, {parsed:?}"),
            }
        }
    }
}
