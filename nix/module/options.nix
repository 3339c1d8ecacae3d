# The options of one instance. What the program is told is documented by its own schema (docs/configuration.md);
# typed here are only the settings that the units need to know as well.
{
  self,
  lib,
  pkgs,
  cudaByDefault,
}:
{ config, ... }:
let
  inherit (lib) mkOption literalExpression types;
  packages = self.packages.${pkgs.stdenv.hostPlatform.system};
  lock = lib.importTOML config.modelsFile;
  listen = import ./listen.nix { inherit lib; };

  # As much as a machine's own store should hold without being asked.
  storeBytes = 1024 * 1024 * 1024;
  model = types.submodule (
    { name, ... }:
    {
      options.from = mkOption {
        type = types.enum [
          "store"
          "fetch"
        ];
        default = if lock.${name}.size or 0 <= storeBytes then "store" else "fetch";
        defaultText = literalExpression ''"store" up to 1 GiB, else "fetch"'';
        description = ''
          `"store"`: a derivation of the Nix store. `"fetch"`: downloaded into `/var/lib/llm-server/models` before the
          server starts, from the same place, with the same digest.
        '';
      };
    }
  );
  companions =
    name:
    lib.filter (other: other != null) [
      (lock.${name}.mmproj or null)
      (lock.${name}.draft or null)
    ];
in
{
  options = {
    acceleration = mkOption {
      type = types.nullOr (
        types.enum [
          "cpu"
          "cuda"
        ]
      );
      default = null;
      description = "What computes beside the CPU. `null`: NVIDIA's GPUs if `nixpkgs.config.cudaSupport` is set.";
    };

    package = mkOption {
      type = types.package;
      default = if config.cuda then packages.cuda else packages.default;
      defaultText = literalExpression "llm-server.packages.\${system}.default, or .cuda";
      description = "The package to run.";
    };

    settings = mkOption {
      default = { };
      description = ''
        The configuration, as [docs/configuration.md](configuration.md) documents it; tags such as `'auto` are strings. It
        is checked while the system is built. Keys belong into `apiKeyFiles`.
      '';
      example = literalExpression ''
        {
          model.name = "qwen3.5-35b-a3b-q4_k_m";
          engine = { context = 32768; parallel = 2; kv.k = "q8_0"; };
        }
      '';
      type = types.submodule {
        freeformType = (pkgs.formats.json { }).type;
        options = {
          listen = mkOption {
            type = types.str;
            default = "127.0.0.1:8080";
            example = "unix:/run/llm-server.sock";
            description = "Where the HTTP API is offered: `host:port` or `unix:/path`. The socket unit listens there.";
          };
          model.name = mkOption {
            type = types.nullOr types.str;
            default = null;
            example = "qwen3.5-35b-a3b-q4_k_m";
            description = "The model to serve: a key of the lock.";
          };
          engine.rpc = mkOption {
            type = types.listOf types.str;
            default = [ ];
            example = [ "10.0.0.2:50052" ];
            description = "Workers on other machines (`rpcWorker` there) that lend their devices: `host:port`. Only they can be reached.";
          };
          limits.drain = mkOption {
            type = types.nullOr types.numbers.nonnegative;
            default = null;
            description = "Seconds that running requests may go on when the service stops. `null`: the program's own default.";
          };
        };
      };
    };

    configFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = literalExpression "./llm-server.ncl";
      description = ''
        A file, Nickel or JSON, used instead of `settings`. What `settings` says of `listen`, `model.name`,
        `engine.rpc` and `limits.drain` still counts, and is put over the file, because the units need it. A path of the flake is
        checked while the system is built; a file of the running system when the service starts.
      '';
    };

    modelsFile = mkOption {
      type = types.path;
      default = builtins.path {
        name = "models.lock";
        path = ../../models.lock;
      };
      defaultText = literalExpression "models.lock of this repository";
      description = "The lock that pins the models.";
    };

    models = mkOption {
      type = types.attrsOf model;
      description = ''
        Where the weights come from, by the names of the lock. The model of the settings and its companions (vision
        projector, draft model) are always among them.
      '';
      example = literalExpression ''{ "qwen3.5-9b-q4_k_m".from = "store"; }'';
    };

    apiKeyFiles = mkOption {
      type = types.listOf types.path;
      default = [ ];
      apply = map toString;
      example = [ "/run/secrets/llm-server-keys" ];
      description = ''
        Files of API keys, one key a line, handed to the service as credentials: only root needs to be able to read
        them. They must not lie in the Nix store, which everybody reads. Without any, no key is asked for.
      '';
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether other machines may reach the port. The server speaks plain HTTP: see the reverse proxies in docs/systemd.md.";
    };

    autoStart = mkOption {
      type = types.bool;
      default = true;
      description = "Whether the model is loaded at boot. If not, whoever connects first waits until it is.";
    };

    watchdog = mkOption {
      type = types.str;
      default = "2min";
      description = "The service is killed and started anew when a step of the engine has not gone forward for so long.";
    };

    memory = {
      max = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "40G";
        description = ''
          `MemoryMax=`: the server plans within it, and refuses to start with a model that does not fit. `"auto"`: what
          `llm-server plan --memory` says on this machine, before each start; needs a number as `settings.cache.ram`.
        '';
      };
      low = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "24G";
        description = ''
          `MemoryLow=`: so much is not reclaimed for others, such as mapped weights that are in use. `"auto"`: as for `max`.
        '';
      };
    };

    environment = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        HTTPS_PROXY = "http://proxy.example:3128";
      };
      description = "Environment of the service and of the download. No secrets: they would be in the Nix store.";
    };

    fetchEnvironmentFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      apply = file: if file == null then null else toString file;
      example = "/run/secrets/hugging-face";
      description = "A file with secrets for the download, such as the line `HF_TOKEN=…`.";
    };

    # Worked out here once for the units, the rules and the firewall.
    cuda = mkOption {
      internal = true;
      readOnly = true;
      type = types.bool;
      default = config.acceleration == "cuda" || (config.acceleration == null && cudaByDefault);
    };
    address = mkOption {
      internal = true;
      readOnly = true;
      type = types.attrs;
      default = listen config.settings.listen;
    };
  };

  config.models =
    let
      name = config.settings.model.name;
    in
    lib.mkIf (name != null) (lib.genAttrs ([ name ] ++ companions name) (_: { }));
}
