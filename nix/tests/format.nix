# Nix files are formatted and have no dead code; scripts of this folder pass shellcheck. Rust is `make lint`'s.
{ lib, pkgs, ... }:
let
  # A package set may lack one of them.
  has = name: lib.optional (pkgs ? ${name}) pkgs.${name};
  nix = lib.fileset.toSource {
    root = ../..;
    fileset = lib.fileset.unions [
      ../../flake.nix
      ../../nix
    ];
  };
in
pkgs.runCommand "llm-server-format"
  { nativeBuildInputs = has "nixfmt" ++ has "deadnix" ++ has "shellcheck"; }
  ''
    cd ${nix}
    : > $out
    ran() {
      if command -v "$1" > /dev/null; then "$@"; echo "$1" >> $out; else echo "not checked: $1 is missing"; fi
    }
    ran nixfmt --check $(find . -name '*.nix')
    ran deadnix --fail .
    ran shellcheck nix/*.sh
  ''
