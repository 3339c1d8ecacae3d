//! Small models of `benches/gen_moe.py`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Writes a model of a preset into the folder.
pub(crate) fn generate(folder: &Path, preset: &str, options: &[&str]) -> PathBuf {
    let venv = std::env::var_os("LLM_SERVER_TEST_VENV")
        .expect("run by `make test`, which makes a Python with NumPy");
    let path = folder.join(format!("{preset}.gguf"));
    let output = Command::new(Path::new(&venv).join("bin/python"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/gen_moe.py"))
        .args(["--quiet", "--preset", preset, "-o"])
        .arg(&path)
        .args(options)
        .output()
        .expect("Python can be started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    path
}
