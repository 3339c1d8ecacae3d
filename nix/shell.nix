# `nix develop`: what the Makefile and CONTRIBUTING.md ask for.
{ self, pkgs }:
let
  inherit (pkgs) lib;
  inherit (self.packages.${pkgs.stdenv.hostPlatform.system}) default;
  tools = [
    "cargo-deny"
    "cargo-nextest"
    "clippy"
    "curl"
    "deadnix"
    "git"
    "jq"
    "nixfmt"
    "python3"
    "rust-analyzer"
    "rustfmt"
    "shellcheck"
  ];
in
{
  default = pkgs.mkShell {
    inputsFrom = [ default ];
    # A package set without one of them still gives a shell.
    packages = lib.attrValues (lib.getAttrs (lib.filter (name: pkgs ? ${name}) tools) pkgs);
  };
}
