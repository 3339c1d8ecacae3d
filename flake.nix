{
  description = "Serves one pinned language model from one declarative file over an OpenAI-compatible HTTP API";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      eachSystem = make: lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = eachSystem (pkgs: import ./nix/packages.nix { inherit nixpkgs pkgs; });
      apps = eachSystem (pkgs: import ./nix/apps.nix { inherit self pkgs; });
      nixosModules.default = lib.modules.importApply ./nix/module.nix { inherit self; };
      overlays.default = import ./nix/overlay.nix;
      devShells = eachSystem (pkgs: import ./nix/shell.nix { inherit self pkgs; });
      formatter = eachSystem (pkgs: pkgs.callPackage ./nix/formatter.nix { });
      checks = eachSystem (pkgs: import ./nix/checks.nix { inherit self nixpkgs pkgs; });
    };
}
