//! Clients as their users install them: virtual environments for Python, a folder of modules for node.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    env,
    ffi::OsString,
    fs,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use crate::server;

/// Packages that need other versions of the same things live apart.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packages {
    Clients,
    LiteLlm,
}

impl Packages {
    fn requirements(self) -> PathBuf {
        source(match self {
            Self::Clients => "requirements.txt",
            Self::LiteLlm => "requirements-litellm.txt",
        })
    }

    /// Where `make test` has them, or else a place of the tests' own.
    fn folder(self) -> PathBuf {
        let own = || server::target().join("venv").into_os_string();
        let mut folder: OsString = env::var_os("LLM_SERVER_TEST_VENV").unwrap_or_else(own);
        if let Self::LiteLlm = self {
            folder.push("-litellm");
        }
        folder.into()
    }
}

/// Python with `packages`.
pub(crate) fn python(packages: Packages) -> PathBuf {
    let requirements = packages.requirements();
    let folder = packages.folder();
    let python = folder.join("bin/python");
    install(&folder, &[&requirements], || {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet"])
            .args(["--disable-pip-version-check", "-r"])
            .arg(&requirements));
    });
    python
}

/// What lies in a folder of tests/clients, beside the modules that its lists name; `None` where there is no node.
pub(crate) fn node_folder(name: &str) -> Option<PathBuf> {
    Command::new("node").arg("--version").output().ok()?;
    let folder = server::target().join(format!("node-{name}"));
    let lists = ["package.json", "package-lock.json"].map(|list| source(name).join(list));
    let lists: Vec<&Path> = lists.iter().map(PathBuf::as_path).collect();
    install(&folder, &lists, || {
        fs::create_dir_all(&folder).expect("the target folder can be written");
        for list in &lists {
            copy(list, &folder);
        }
        // No scripts of packages run.
        run(Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder));
    });
    // A module is looked for in the folders above the file that wants it.
    for entry in fs::read_dir(source(name)).expect("the tests are there") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|end| end == "mjs") {
            copy(&path, &folder);
        }
    }
    Some(folder)
}

pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
}

/// Has `folder` filled anew unless it was, from the same `lists`. Tests run at once: one does it, others wait.
fn install(folder: &Path, lists: &[&Path], fill: impl FnOnce()) {
    let texts = lists.iter().map(fs::read_to_string);
    let wanted = texts.collect::<Result<String, _>>().expect("a list");
    let parent = folder.parent().expect("a folder in another");
    fs::create_dir_all(parent).expect("the target folder can be written");
    let lock = File::create(folder.with_extension("lock")).expect("a file of the lock");
    lock.lock().expect("the lock can be taken");
    let ready = folder.join("ready");
    if fs::read_to_string(&ready).is_ok_and(|filled| filled == wanted) {
        return;
    }
    fill();
    fs::write(ready, wanted).expect("the folder can be written");
}

fn copy(file: &Path, folder: &Path) {
    let name = file.file_name().expect("a file");
    fs::copy(file, folder.join(name)).expect("the target folder can be written");
}

fn run(command: &mut Command) {
    let status = command.status().expect("its program is installed");
    assert!(status.success(), "{command:?} failed");
}
