# The table of options in docs/systemd.md is what the module declares. When it is not, the check prints the right one.
{
  lib,
  nixpkgs,
  pkgs,
  self,
  ...
}:
let
  begin = "<!-- options: written by nix/tests/options.nix -->\n";
  end = "<!-- end of options -->";

  prefix = "services.llm-server.";
  inherit
    (nixpkgs.lib.nixosSystem {
      system = pkgs.stdenv.hostPlatform.system;
      modules = [
        self.nixosModules.default
        { nixpkgs.hostPlatform = pkgs.stdenv.hostPlatform.system; }
      ];
    })
    options
    ;
  # Those of an instance are the same again.
  isShown =
    option:
    option.visible
    && !option.internal
    && lib.hasPrefix prefix option.name
    && !lib.hasInfix "instances.<name>" option.name
    && !lib.hasInfix "_module" option.name;
  shown = lib.filter isShown (
    lib.optionAttrSetToDocList { services.llm-server = options.services.llm-server; }
  );

  oneLine = text: lib.replaceStrings [ "\n" "|" ] [ " " "\\|" ] (lib.trim text);
  value =
    literal:
    if literal == null then
      ""
    else
      "`${oneLine (literal.text or (lib.generators.toPretty { } literal))}`";
  row =
    option:
    "| `${lib.removePrefix prefix option.name}` | ${oneLine option.type} | ${value (option.default or null)} | ${
      oneLine (option.description.text or option.description)
    } |\n";

  table = ''
    ### Options of `services.llm-server`, and of each of its `instances`

    | Name | Type | Default | Meaning |
    | --- | --- | --- | --- |
  ''
  + lib.concatMapStrings row (lib.sort (a: b: a.name < b.name) shown);

  document = builtins.readFile ../../docs/systemd.md;
  committed = lib.head (lib.splitString end (lib.last (lib.splitString begin document)));
in
pkgs.runCommand "options"
  {
    table = builtins.unsafeDiscardStringContext table;
    inherit committed;
    passAsFile = [
      "table"
      "committed"
    ];
  }
  ''
    if ! cmp -s "$tablePath" "$committedPath"; then
      cat "$tablePath"
      echo "docs/systemd.md: the table of options is not the one above" >&2
      exit 1
    fi
    cp "$tablePath" $out
  ''
