# What `nix run .#NAME -- ARGUMENTS` runs. Configuration: config.ncl of the folder it is run in, else the built-in one.
{ self, pkgs }:
let
  inherit (pkgs) lib;
  inherit (self.packages.${pkgs.stdenv.hostPlatform.system}) default models;
  server = lib.getExe default;

  app = name: description: text: {
    type = "app";
    program = lib.getExe (
      pkgs.writeShellApplication {
        name = "llm-server-${name}";
        inherit text;
      }
    );
    meta = { inherit description; };
  };
in
{
  default = app "command" "llm-server with any of its commands" ''
    exec ${server} "$@"
  '';

  # The default model comes with the flake; others are fetched into the same folder at their first use.
  serve = app "serve" "Serve the model of config.ncl, fetched first if it is missing" ''
    store=''${LLM_SERVER_MODELS:-''${XDG_DATA_HOME:-$HOME/.local/share}/llm-server/models}
    mkdir -p "$store"
    for model in ${models}/*.gguf; do
      [ -e "$store/''${model##*/}" ] || ln -sfn "$(readlink -f "$model")" "$store/''${model##*/}"
    done
    LLM_SERVER_MODELS=$store exec ${server} serve --fetch "$@"
  '';

  check = app "check" "Say whether a configuration is right and what it comes to" ''
    exec ${server} check "$@"
  '';

  bench = app "bench" "Measure a running server" ''
    exec ${server} bench "$@"
  '';
}
