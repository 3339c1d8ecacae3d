# What `nix flake check` proves: one check for each file of tests/. A file is a function of this set.
{
  self,
  nixpkgs,
  pkgs,
}:
let
  inherit (pkgs) lib;
  packages = self.packages.${pkgs.stdenv.hostPlatform.system};
  given = {
    inherit
      self
      nixpkgs
      pkgs
      lib
      ;
    llm-server = packages.default;
    inherit (packages) models;
  };
  files = lib.filterAttrs (name: _: lib.hasSuffix ".nix" name) (builtins.readDir ./tests);
in
lib.mapAttrs' (
  name: _: lib.nameValuePair (lib.removeSuffix ".nix" name) (import (./tests + "/${name}") given)
) files
