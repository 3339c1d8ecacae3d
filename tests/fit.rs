//! Plans: what they promise is what llama.cpp then allocates, and what cannot work is refused with what would.

#[path = "support/server.rs"]
mod server;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use llm_server::{
    config::{self, EngineConfig, Kind, KnownModel},
    engine::{
        fit::{self, Files, Plan},
        llama::{self, Buffer, Llama, Weights},
        model::{Model, Row},
    },
};

fn init() {
    llama::init(|message| panic!("llama.cpp aborted: {message}")).unwrap();
}

fn settings(overrides: &[&str]) -> EngineConfig {
    let known = [server::MODEL, "draft"].map(|name| KnownModel {
        name: name.into(),
        trained_context: None,
    });
    // One thread: other tests run beside this one.
    let overrides: Vec<_> = overrides
        .iter()
        .chain(&["engine.threads = 1"])
        .map(|text| (*text).to_owned())
        .collect();
    config::load(&config::Source::built_in(), &overrides, &known)
        .unwrap()
        .engine
}

fn small_model() -> PathBuf {
    server::fetch_model();
    let lock = llm_server::lock::Lock::builtin();
    let entry = lock.get(server::MODEL).unwrap();
    llm_server::lock::Store::at(server::models()).path(server::MODEL, entry)
}

/// A synthetic model of `benches/gen_moe.py`; `header`: only its header, and a hole for the weights.
fn synthetic(folder: &Path, preset: &str, header: bool) -> PathBuf {
    generate(
        folder,
        preset,
        if header { &["--header-only"] } else { &[] },
    )
}

/// The header of a synthetic model with other shapes.
fn synthetic_with(folder: &Path, preset: &str, options: &[&str]) -> PathBuf {
    generate(folder, preset, &[&["--header-only"], options].concat())
}

fn generate(folder: &Path, preset: &str, options: &[&str]) -> PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let python = PYTHON.get_or_init(|| {
        let venv = std::env::var_os("LLM_SERVER_TEST_VENV")
            .expect("run by `make test`, which makes a Python with NumPy");
        Path::new(&venv).join("bin/python")
    });
    let path = folder.join(format!("{preset}{}.gguf", options.concat()));
    let mut command = Command::new(python);
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/gen_moe.py"))
        .args(["--quiet", "--preset", preset, "-o"])
        .arg(&path)
        .args(options);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    path
}

/// Bytes of weights, cache and compute buffers in host memory.
fn really(buffers: &[Buffer]) -> [u64; 3] {
    buffers.iter().fold([0; 3], |sum, buffer| {
        [
            sum[0] + buffer.weights,
            sum[1] + buffer.cache,
            sum[2] + buffer.compute,
        ]
    })
}

fn planned(plan: &Plan) -> [u64; 3] {
    let host = plan.devices.last().unwrap();
    [host.weights.total(), host.kv.total(), host.compute]
}

#[test]
fn a_plan_agrees_with_what_is_allocated_within_two_percent() {
    init();
    let folder = tempfile::tempdir().unwrap();
    let models = [
        small_model(),
        synthetic(folder.path(), "qwen35moe-tiny", false),
        synthetic(folder.path(), "qwen3moe-tiny", false),
        synthetic(folder.path(), "qwen3-tiny", false),
    ];
    let shapes = [
        "engine = {context = 1024, parallel = 1, load = 'none}",
        "engine = {context = 2048, parallel = 3, ubatch = 128, load = 'none, kv = {k = 'q8_0, v = 'q8_0}}",
        "engine = {context = 4096, parallel = 2, load = 'none, flash_attention = 'off}",
    ];
    for model in &models {
        for shape in shapes {
            let config = settings(&[shape]);
            let plan = fit::fit(model, &config).unwrap();
            let weights = Weights::load(model, &plan, &mut |_| true).unwrap();
            let llama = Llama::open(weights, &config, &plan).unwrap();
            let (planned, real) = (planned(&plan), really(&llama.buffers()));
            println!(
                "{} {shape}: planned {planned:?}, real {real:?}",
                model.display()
            );
            for (planned, real) in planned.into_iter().zip(real) {
                assert!(
                    planned.abs_diff(real) * 50 <= real,
                    "{} with {shape}: planned {planned}, real {real}",
                    model.display()
                );
            }
        }
    }
}

/// Bytes beside the model's own, planned and real.
fn drafting(plan: &Plan, buffers: &[Buffer]) -> [u64; 2] {
    let host = plan.devices.last().unwrap();
    [host.draft, really(buffers).iter().sum()]
}

#[test]
fn a_plan_counts_who_guesses_for_the_model_within_two_percent() {
    init();
    let folder = tempfile::tempdir().unwrap();
    let target = synthetic(folder.path(), "qwen3moe-tiny", false);
    let draft = synthetic(folder.path(), "qwen3-tiny", false);
    let predicting = generate(folder.path(), "qwen35moe-tiny", &["--mtp"]);
    let shape = "engine = {context = 2048, parallel = 3, ubatch = 128, load = 'none}";
    let close = |[planned, real]: [u64; 2]| {
        println!("planned {planned}, real {real}");
        assert!(
            real > 0 && planned.abs_diff(real) * 50 <= real,
            "{planned} {real}"
        );
    };

    let kv = "engine.speculate.draft_kv = {k = 'q8_0, v = 'q8_0}";
    let config = settings(&[shape, kv, "engine.speculate.draft = \"draft\""]);
    let files = Files {
        draft: Some(&draft),
        ..Files::alone(&target)
    };
    let plan = fit::fit_all(Kind::Auto, files, &config).unwrap();
    let own = plan.draft.as_ref().unwrap();
    assert_eq!((own.context, own.parallel), (2048, 3));
    let (_, buffers) = llama::companion(&draft, &config, own).unwrap();
    close(drafting(&plan, &buffers));

    let config = settings(&[shape, "engine.speculate.mtp = 'auto"]);
    let plan = fit::fit(&predicting, &config).unwrap();
    let weights = Weights::load(&predicting, &plan, &mut |_| true).unwrap();
    let mut llama = Llama::open(weights, &config, &plan).unwrap();
    llama.warm_up_worst().unwrap();
    close(drafting(&plan, &llama.heads_buffers()));
    for (planned, real) in planned(&plan).into_iter().zip(really(&llama.buffers())) {
        close([planned, real]);
    }
    // Where nobody asks for them the prediction layers are not even loaded.
    let without = fit::fit(&predicting, &settings(&[shape])).unwrap();
    let headless = fit::fit(&target, &settings(&[shape, "engine.speculate.mtp = 'auto"])).unwrap();
    assert!(planned(&without)[0] < planned(&plan)[0]);
    assert_eq!(
        (without.settings.mtp, headless.settings.mtp),
        (false, false)
    );
}

#[test]
fn a_plan_of_22_gb_needs_only_the_header() {
    init();
    let folder = tempfile::tempdir().unwrap();
    let model = synthetic(folder.path(), "qwen3.5-35b-a3b", true);
    let config = settings(&[
        "engine = {context = 65536, parallel = 1, kv = {k = 'q8_0, v = 'q8_0}, placement.devices = []}",
    ]);
    let plan = match fit::fit(&model, &config) {
        Ok(plan) => plan,
        // A machine with less memory than the model has gets told so.
        Err(error) => {
            assert!(error.to_string().contains("host lacks"), "{error}");
            return;
        }
    };
    let host = plan.devices.last().unwrap();
    assert_eq!(host.weights.experts, 19_461_570_560);
    assert_eq!(host.weights.total(), 22_005_033_472);
    // 10 of 40 layers have a cache: 2 heads of 256 elements, 34 bytes for 32 of them.
    assert_eq!(host.kv.keys, 10 * 65536 * 2 * 256 * 34 / 32);
    assert_eq!(host.kv.values, host.kv.keys);
    // The other 30 keep states in f32: 32 × 128 × 128 of the recurrence and 3 × 8192 of the convolution.
    assert_eq!(host.kv.state, 30 * 4 * (32 * 128 * 128 + 3 * 8192));
}

/// Runs the server with settings that cannot work: exit status, message, and how long it took.
fn refused(model: &Path, settings: &[&str]) -> (i32, String, Duration) {
    let begun = Instant::now();
    let mut command = server::command();
    command
        .args(["serve", "--set", "listen = \"127.0.0.1:0\"", "--model-file"])
        .arg(model);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let output = command.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), message, begun.elapsed())
}

#[test]
fn a_drafter_that_cannot_guess_for_the_model_is_refused_with_what_could() {
    let folder = tempfile::tempdir().unwrap();
    let small = small_model();
    let moe = synthetic(folder.path(), "qwen35moe-tiny", true);
    let dense = synthetic(folder.path(), "qwen3-tiny", true);
    let heavy = ["--layers", "480", "--vocab", "4096"];
    let huge = synthetic_with(folder.path(), "qwen3-32b", &heavy);
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let cases: &[(&Path, &[&str], &str, &[&str])] = &[
        (
            &small,
            &["--draft-file", &path(&dense)],
            "engine.context = 512",
            &[
                "engine.speculate.draft:",
                "4096 tokens",
                "49152",
                "same vocabulary",
            ],
        ),
        (
            &dense,
            &["--draft-file", &path(&moe)],
            "engine.context = 512",
            &[
                "engine.speculate.draft:",
                "recurrent layers",
                "accepted: a model with attention",
            ],
        ),
        (
            &dense,
            &["--draft-file", &path(&dense)],
            "engine.speculate.draft_device = \"CUDA7\"",
            &[
                "engine.speculate.draft_device:",
                "CUDA7",
                "accepted here: 'auto, \"CPU\"",
            ],
        ),
        (
            &dense,
            &["--draft-file", &path(&huge)],
            "engine.context = 512",
            &[
                "engine.speculate.draft:",
                "does not fit beside the model, which would fit without it",
                "host lacks",
            ],
        ),
        (
            &moe,
            &[],
            "engine.speculate.mtp = true",
            &[
                "engine.speculate.mtp:",
                "no prediction layers",
                "accepted here: false or 'auto",
            ],
        ),
    ];
    for (model, options, setting, words) in cases {
        let mut command = server::command();
        command.args([
            "serve",
            "--set",
            "listen = \"127.0.0.1:0\"",
            "--set",
            setting,
        ]);
        let output = command
            .arg("--model-file")
            .arg(model)
            .args(*options)
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{setting}: {message}");
        for word in *words {
            assert!(
                message.contains(word),
                "{setting}: no {word:?} in {message}"
            );
        }
    }
}

/// Which model a case is about.
#[derive(Clone, Copy)]
enum About {
    Small,
    Moe,
    /// Heads of 48 elements.
    Odd,
    /// More weights than any machine has memory for.
    Huge,
}

/// Model, setting, exit status, and words that the message must have.
const REFUSED: &[(About, &str, i32, &[&str])] = &[
    (
        About::Small,
        "engine = {context = 1048576, parallel = 16, beyond_trained_context = true}",
        78,
        &["host lacks", "what would fit", "engine.context = "],
    ),
    (
        About::Small,
        "engine = {context = 1048576, parallel = 64}",
        2,
        &["engine.context × engine.parallel", "lower one of the two"],
    ),
    (
        About::Small,
        "engine = {kv.v = 'q8_0, flash_attention = 'off}",
        2,
        &["engine.kv.v", "set engine.flash_attention to 'auto"],
    ),
    (
        About::Small,
        "engine.placement.gpu_layers = 99",
        78,
        &["engine.placement.gpu_layers", "30 layers", "accepted: 0–31"],
    ),
    (
        About::Small,
        "engine.placement.cpu_moe_layers = 3",
        78,
        &[
            "engine.placement.cpu_moe_layers",
            "no experts",
            "'auto or 0",
        ],
    ),
    (
        About::Moe,
        "engine.placement.cpu_moe_layers = 5",
        78,
        &["engine.placement.cpu_moe_layers", "accepted: 0–4"],
    ),
    (
        About::Small,
        "engine.placement.tensor_overrides = [{tensors = \"ffn_.*_exps\", device = \"CPU\"}]",
        78,
        &[
            "engine.placement.tensor_overrides",
            "matches no tensor",
            "ffn_down.weight",
        ],
    ),
    (
        About::Small,
        "engine.placement.tensor_overrides = [{tensors = \"ffn_(\", device = \"CPU\"}]",
        78,
        &["engine.placement.tensor_overrides", "no regular expression"],
    ),
    (
        About::Small,
        "engine.placement.devices = [\"CUDA7\"]",
        78,
        &["engine.placement.devices", "CUDA7"],
    ),
    (
        About::Small,
        "engine.cpu_mask = \"4000\"",
        78,
        &["engine.cpu_mask", "CPU 4000", "accepted: "],
    ),
    (
        About::Small,
        "engine.placement = {devices = [], tensor_split = [1, 1]}",
        78,
        &["engine.placement.tensor_split", "2 shares for 0"],
    ),
    (About::Small, "engine.threads = 0", 2, &["threads", "1–512"]),
    (
        About::Small,
        "engine.threads = 100000",
        2,
        &["threads", "1–512"],
    ),
    (
        About::Small,
        "engine = {batch = 128, ubatch = 256}",
        2,
        &["engine.ubatch", "set ubatch to batch or less"],
    ),
    (
        About::Small,
        "engine.context = 16384",
        78,
        &["engine.context = 16384", "8192", "beyond_trained_context"],
    ),
    (
        About::Small,
        "engine.speculate.draft = \"nobody\"",
        2,
        &[
            "engine.speculate.draft",
            "models.lock has no model \"nobody\"",
        ],
    ),
    (
        About::Moe,
        "engine = {speculate.mtp = true, reproducible = true}",
        2,
        &["engine.reproducible = true", "leave one of the two out"],
    ),
    (
        About::Odd,
        "engine.kv.k = 'q4_0",
        78,
        &["engine.kv.k", "head size of 48", "accepted: 'f16"],
    ),
    (
        About::Huge,
        "engine.context = 4096",
        78,
        &[
            "host lacks",
            "smaller quantization or model from models.lock",
            "models.lock has smaller ones: qwen3.5-",
        ],
    ),
];

#[test]
fn what_cannot_work_is_refused_within_two_seconds_with_what_would() {
    let folder = tempfile::tempdir().unwrap();
    let small = small_model();
    let moe = synthetic(folder.path(), "qwen35moe-tiny", true);
    let odd = synthetic_with(folder.path(), "qwen3-tiny", &["--head-dim", "48"]);
    let huge = synthetic_with(
        folder.path(),
        "qwen3.5-35b-a3b",
        &["--layers", "480", "--vocab", "4096"],
    );
    let model = |about| match about {
        About::Small => &small,
        About::Moe => &moe,
        About::Odd => &odd,
        About::Huge => &huge,
    };
    for &(about, setting, status, words) in REFUSED {
        let (code, message, took) = refused(model(about), &[setting]);
        println!(
            "{setting}\n  {code} after {took:?}: {}",
            message.lines().last().unwrap_or_default()
        );
        assert_eq!(code, status, "{setting}: {message}");
        for word in words {
            assert!(
                message.contains(word),
                "{setting}: no {word:?} in {message}"
            );
        }
        assert!(took < Duration::from_secs(2), "{setting} took {took:?}");
    }
}

#[test]
fn a_worst_case_step_runs_on_every_kind_of_memory_and_leaves_nothing_behind() {
    init();
    let folder = tempfile::tempdir().unwrap();
    let models = [
        small_model(),
        synthetic(folder.path(), "qwen35moe-tiny", false),
        synthetic(folder.path(), "qwen3moe-tiny", false),
    ];
    for model in &models {
        for shape in [
            "engine = {context = 1024, parallel = 1, ubatch = 64}",
            "engine = {context = 512, parallel = 3, ubatch = 64, kv = {k = 'q8_0, v = 'q8_0}}",
        ] {
            let config = settings(&[shape]);
            let plan = fit::fit(model, &config).unwrap();
            let weights = Weights::load(model, &plan, &mut |_| true).unwrap();
            let mut llama = Llama::open(weights, &config, &plan).unwrap();
            llama.warm_up_worst().unwrap();
            let row = Row {
                token: 1,
                position: 0,
                sequence: 0,
                logits: true,
            };
            assert_eq!(llama.decode(&[row], &|| false), Ok(()), "{shape}");
        }
    }
}

#[test]
fn compute_threads_keep_to_the_cpus_and_the_patience_that_are_configured() {
    let server = server::Server::start(&[
        "engine = {context = 256, parallel = 1, threads = 2, cpu_mask = \"0\", poll = 7}",
    ]);
    let process = PathBuf::from(format!("/proc/{}", server.pid()));
    let environment = fs::read_to_string(process.join("environ")).unwrap();
    assert!(environment.contains("GOMP_SPINCOUNT=70000\0"));
    let allowed: Vec<_> = fs::read_dir(process.join("task"))
        .unwrap()
        .filter_map(|task| {
            let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
            // Worker threads bear the name of the thread that made them.
            (field("Name:")?.trim() == "engine")
                .then(|| field("Cpus_allowed_list:").map(|list| list.trim().to_owned()))?
        })
        .collect();
    assert_eq!(allowed, ["0", "0"], "the engine's thread and its worker");
}
