//! The models of tests/encoders.py and the projectors of tests/projectors.py, written once and kept between runs.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use crate::server;

/// `minilm` or `reranker`.
pub(crate) fn model(kind: &str) -> PathBuf {
    written("encoders.py", kind, None)
}

/// `line`, `whole`, `grid` or `deadly`, for a model of that embedding width.
pub(crate) fn projector(kind: &str, width: usize) -> PathBuf {
    written("projectors.py", kind, Some(width))
}

/// A small hybrid model with M-RoPE and an embedding width of 256, of `benches/gen_moe.py`.
pub(crate) fn hybrid() -> PathBuf {
    synthetic("hybrid-tiny.gguf", "qwen35moe-tiny")
}

/// A small model of which most layers see a window of 256 tokens.
pub(crate) fn windowed() -> PathBuf {
    synthetic("window-tiny.gguf", "gemma3-tiny")
}

fn synthetic(name: &str, preset: &str) -> PathBuf {
    let path = server::models().join(name);
    // One process writes it, the others find it whole.
    if !path.exists() {
        let part = path.with_extension(format!("{}.part", std::process::id()));
        let status = Command::new(python())
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/gen_moe.py"))
            .args(["--preset", preset, "--quiet", "-o"])
            .arg(&part)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .status();
        assert!(status.expect("python can be started").success());
        fs::rename(&part, &path).expect("both are in one folder");
    }
    path
}

fn python() -> PathBuf {
    let venv = std::env::var_os("LLM_SERVER_TEST_VENV")
        .expect("run by `make test`, which makes a Python with NumPy");
    Path::new(&venv).join("bin/python")
}

fn written(program: &str, kind: &str, width: Option<usize>) -> PathBuf {
    fs::create_dir_all(server::models()).expect("the target folder can be written");
    // Tests run at once: the first writes it, the others wait.
    let lock = File::create(server::models().join(".encoders")).expect("a file for the lock");
    lock.lock().expect("the lock can be taken");
    let output = Command::new(python())
        .arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests")
                .join(program),
        )
        .arg(kind)
        .arg(server::models())
        .args(width.map(|width| width.to_string()))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python can be started");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let path = String::from_utf8(output.stdout).expect("a path");
    PathBuf::from(path.trim())
}
