//! Compiles the C++ borders (chat shim, guard, projector) and llama.cpp's RPC backend from the sources that `llama-cpp-sys-2` carries,
//! and lays the engine's shared libraries beside the binary so that it runs from anywhere without `LD_LIBRARY_PATH`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitStatus,
};

fn main() {
    // `links = "llama"` of llama-cpp-sys-2 hands its output folder to direct dependents.
    let engine =
        PathBuf::from(env::var("DEP_LLAMA_ROOT").expect("llama-cpp-sys-2 is a dependency"));
    let source = engine_source(&engine);
    compile_cpp(&source);
    lay_out_libraries(&engine);
    compile_rpc(&source, &engine);
    pin();
}

/// The vendored llama.cpp tree: only it has the headers of `common`, and only the cache that the
/// engine's build left says where it is.
fn engine_source(engine: &Path) -> PathBuf {
    let cache = engine.join("build/CMakeCache.txt");
    let text = fs::read_to_string(&cache).unwrap_or_else(|e| panic!("{}: {e}", cache.display()));
    let source = text
        .lines()
        .find_map(|line| line.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="))
        .expect("CMakeCache.txt names its source directory");
    PathBuf::from(source)
}

fn compile_cpp(source: &Path) {
    let units = [
        "src/chat/shim",
        "src/engine/llama/guard",
        "src/engine/llama/mtp",
        "src/engine/llama/projector",
        "src/engine/llama/rpc",
    ];
    println!("cargo:rerun-if-changed=src/engine/llama/guarded.h");
    for unit in units {
        println!("cargo:rerun-if-changed={unit}.cpp");
        println!("cargo:rerun-if-changed={unit}.h");
    }
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .files(units.map(|unit| format!("{unit}.cpp")))
        .includes(
            ["include", "ggml/include", "common", "vendor", "src", "tools/mtmd"]
                .map(|dir| source.join(dir)),
        )
        .flag_if_supported("-Wno-unused-parameter")
        .flag_if_supported("-Wno-unused-function")
        // The source's place on this machine must not reach the binary.
        .flag(format!("-ffile-prefix-map={}=llama.cpp", source.display()))
        .pic(true)
        .compile("llm_server_cpp");
}

/// llama.cpp's backend for devices of other machines, which the engine's build leaves out, as a plugin beside the others.
/// Two files that its own `CMakeLists.txt` would compile the same way, without RDMA: a library of the build machine must
/// not decide what is built.
fn compile_rpc(source: &Path, engine: &Path) {
    let plugin = profile().join("backends/libggml-rpc.so");
    let ggml = source.join("ggml");
    let mut command = cc::Build::new()
        .cpp(true)
        .std("c++17")
        .pic(true)
        .includes([ggml.join("include"), ggml.join("src")])
        .flag(format!("-ffile-prefix-map={}=llama.cpp", source.display()))
        .get_compiler()
        .to_command();
    for define in ["BACKEND_DL", "BACKEND_BUILD", "BACKEND_SHARED", "SHARED"] {
        command.arg(format!("-DGGML_{define}"));
    }
    for file in ["ggml-rpc.cpp", "transport.cpp"] {
        command.arg(ggml.join("src/ggml-rpc").join(file));
    }
    command.args(["-DNDEBUG", "-shared", "-pthread", "-Wl,-z,relro,-z,now"]);
    for libdir in ["lib", "lib64"] {
        command.arg("-L").arg(engine.join(libdir));
    }
    command.args(["-lggml-base", "-Wl,-rpath,$ORIGIN:$ORIGIN/..", "-o"]);
    // A running server may have the old file mapped: never write into it.
    let _ = fs::remove_file(&plugin);
    let status = command.arg(&plugin).status();
    assert!(
        status.as_ref().is_ok_and(ExitStatus::success),
        "the RPC backend was not compiled: {status:?} from {command:?}"
    );
}

/// `target/<profile>`.
fn profile() -> PathBuf {
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    out.ancestors()
        .nth(3)
        .expect("OUT_DIR lies in target/<profile>/build/<crate>/out")
        .to_owned()
}

/// `target/<profile>/{lib,backends}`, found by run paths relative to the binary. A package installs
/// the same two folders under `lib/llm-server`.
fn lay_out_libraries(engine: &Path) {
    let profile = profile();
    for libdir in ["lib", "lib64"] {
        copy_matching(&engine.join(libdir), &profile.join("lib"), ".so");
    }
    copy_matching(&engine.join("backends"), &profile.join("backends"), ".so");
    // The engine's build script leaves symbolic links here that lead nowhere, and fails on them when it
    // runs again.
    for folder in ["", "deps", "examples"] {
        remove_dangling_links(&profile.join(folder));
    }
    // Old-style tags are inherited by the libraries' own dependencies; new-style ones are not.
    println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags");
    for path in ["$ORIGIN/lib", "$ORIGIN/../lib", "$ORIGIN/../lib/llm-server"] {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{path}");
    }
}

fn copy_matching(from: &Path, to: &Path, part: &str) {
    let Ok(entries) = fs::read_dir(from) else {
        return;
    };
    fs::create_dir_all(to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().contains(part) {
            let target = to.join(&name);
            // A running server may have the old file mapped: never write into it.
            let _ = fs::remove_file(&target);
            fs::copy(entry.path(), &target).unwrap_or_else(|e| panic!("{}: {e}", target.display()));
        }
    }
}

fn remove_dangling_links(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_symlink() && !path.exists() {
            let _ = fs::remove_file(path);
        }
    }
}

/// The engine's identity: the checksums that Cargo.lock holds for its bytes.
fn pin() {
    println!("cargo:rerun-if-changed=Cargo.lock");
    let lock = fs::read_to_string("Cargo.lock").expect("Cargo.lock is part of the source");
    for (name, variable) in [
        ("llama-cpp-sys-2", "LLM_SERVER_ENGINE_SHA256"),
        ("llama-cpp-2", "LLM_SERVER_BINDING_SHA256"),
    ] {
        let checksum = lock
            .split("[[package]]")
            .find(|entry| entry.contains(&format!("name = \"{name}\"\n")))
            .and_then(|entry| entry.split("checksum = \"").nth(1))
            .and_then(|rest| rest.split('"').next())
            .unwrap_or_else(|| panic!("Cargo.lock has no checksum for {name}"));
        println!("cargo:rustc-env={variable}={checksum}");
    }
}
