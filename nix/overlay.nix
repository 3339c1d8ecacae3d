# `pkgs.llm-server`, built with the package set that the overlay is applied to.
final: _prev: {
  llm-server = final.callPackage ./package.nix { };
}
