# What `nix build .#NAME` builds.
{ nixpkgs, pkgs }:
let
  inherit (pkgs) lib;
  models = pkgs.callPackage ./models.nix { };

  # CUDA is not free, so it is allowed here and nowhere else. Ada, Hopper and Blackwell for consumers;
  # other GPUs: `(callPackage ./nix/package.nix { cudaSupport = true; cudaArchitectures = [ "86-real" ]; })`.
  withCuda = import nixpkgs {
    inherit (pkgs.stdenv.hostPlatform) system;
    config = {
      cudaSupport = true;
      cudaCapabilities = [
        "8.9"
        "9.0"
        "12.0"
      ];
      allowUnfreePredicate = withCuda._cuda.lib.allowUnfreeCudaPredicate;
    };
  };
in
{
  default = pkgs.callPackage ./package.nix { };

  # The store of the default model. Each pinned model is an attribute of it: `.#models.NAME`.
  models = models.folder [ models.default ] // models.all;
}
// lib.optionalAttrs (withCuda ? cudaPackages) {
  cuda = withCuda.callPackage ./package.nix { };
}
