# The server: one program, the engine's libraries, a plugin for each kind of CPU, and CUDA's if asked for.
{
  lib,
  stdenv,
  rustPlatform,
  callPackage,
  runCommandCC,
  cmake ? null,
  config ? { },
  cudaSupport ? config.cudaSupport or false,
  # As CMake names them, such as [ "90a-real" "120a-real" ]; null builds for those of the package set.
  cudaArchitectures ? null,
}:
let
  inherit (lib.importTOML ../Cargo.toml) package;
  lockFile = ../Cargo.lock;
  cargoDeps = rustPlatform.importCargoLock { inherit lockFile; };

  # llama.cpp as it lies in the crate that Cargo.lock pins.
  engine = lib.findFirst (one: one.name == "llama-cpp-sys-2") null (lib.importTOML lockFile).package;
  engineCrate = "${cargoDeps}/llama-cpp-sys-2-${engine.version}";

  meta = {
    inherit (package) description;
    license = [
      lib.licenses.mit
      lib.licenses.asl20
    ];
    mainProgram = package.name;
    platforms = lib.platforms.linux;
  };

  # All that takes minutes. Documents, units, benchmarks and this folder do not cause it to be done again.
  program = rustPlatform.buildRustPackage {
    pname = package.name;
    inherit (package) version;

    src = lib.fileset.toSource {
      root = ../.;
      fileset = lib.fileset.unions [
        ../Cargo.toml
        ../Cargo.lock
        ../build.rs
        ../config.ncl
        ../models.lock
        ../src
      ];
    };

    inherit cargoDeps;
    strictDeps = true;
    nativeBuildInputs = [
      cmake
      rustPlatform.bindgenHook
    ];
    # The crate's build script calls CMake, not the phases of the derivation.
    dontUseCmakeConfigure = true;

    # CPU variants are chosen at run time (feature `dynamic-backends`). That also saves them from
    # SOURCE_DATE_EPOCH, at whose sight a plain build of ggml turns AVX and all that follows off.
    env.CMAKE_PROJECT_INCLUDE = ./engine.cmake;

    # No path of the build in any file: the same bytes wherever it is built, and no source in the closure.
    # A package set may link each crate from a path of its own, so the engine is named both ways.
    preBuild = ''
      engine=$(readlink -f ${engineCrate})
      map="-ffile-prefix-map=$NIX_BUILD_TOP=. -ffile-prefix-map=$engine=llama-cpp-sys-2"
      export CFLAGS="''${CFLAGS:-} $map" CXXFLAGS="''${CXXFLAGS:-} $map"
      export RUSTFLAGS="''${RUSTFLAGS:-} --remap-path-prefix=$NIX_BUILD_TOP=."
    '';

    # The tests need the network, a Python client and minutes of the CPU: `.ci/run` runs them. What the
    # package itself must be is checked below and in nix/tests.
    doCheck = false;

    postInstall = ''
      # What cargo's install hook finds loose in the target folder are second copies.
      rm -f "$out"/lib/*.so* "$out"/lib/*.a
      built=$(dirname "$(find target -type d -path '*release/backends' -print -quit)")
      install -Dm755 -t "$out/lib/llm-server" "$built"/lib/lib{ggml,ggml-base,llama,llama-common,mtmd}.so.[0-9]
      install -Dm755 -t "$out/lib/llm-server/backends" "$built"/backends/*.so
    ''
    + lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
      server=$out/bin/${package.name}
      mkdir -p "$out"/share/{bash-completion/completions,zsh/site-functions,fish/vendor_completions.d,man/man1}
      "$server" completions bash > "$out/share/bash-completion/completions/${package.name}"
      "$server" completions zsh > "$out/share/zsh/site-functions/_${package.name}"
      "$server" completions fish > "$out/share/fish/vendor_completions.d/${package.name}.fish"
      "$server" man "$out/share/man/man1"
    ''
    + ''
      if grep -rlF -e "$NIX_BUILD_TOP/source" -e "$NIX_BUILD_TOP/vendor" -e "$NIX_BUILD_TOP/cargo-vendor-dir" "$out"; then
        echo "the files above name a folder of the build" >&2
        exit 1
      fi
    '';

    inherit meta;
  };

  plugin = callPackage ./cuda.nix {
    inherit engineCrate;
    engineVersion = engine.version;
    architectures = cudaArchitectures;
  };
  units = ../contrib/systemd;
in
# The program, and what is laid beside it without compiling anything: units for distributions other than NixOS, and
# CUDA's plugin. So the program has the same bytes with CUDA and without.
runCommandCC "${package.name}${lib.optionalString cudaSupport "-cuda"}-${package.version}"
  {
    pname = package.name;
    inherit (package) version;
    passthru = {
      inherit engine program;
    }
    // lib.optionalAttrs cudaSupport { inherit plugin; };
    inherit meta;
  }
  (
    ''
      cp -r ${program} "$out"
      chmod -R u+w "$out"
    ''
    + lib.optionalString (lib.pathExists units) ''
      install -Dm644 -t "$out/lib/systemd/system" ${units}/*.service ${units}/*.socket
      install -Dm644 -t "$out/share/doc/${package.name}" ${units}/*.conf
      sed -i "s|/usr/bin/${package.name}|$out/bin/${package.name}|" "$out"/lib/systemd/system/* "$out/share/doc/${package.name}"/*
    ''
    + lib.optionalString cudaSupport ''
      ln -s ${plugin}/lib/* "$out/lib/llm-server/backends"
    ''
    + lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
      bash ${./inspect.sh} "$out"
    ''
  )
