# `services.llm-server`: a hardened, watched, socket-activated service for each instance.
{ self }:
{
  config,
  lib,
  pkgs,
  utils,
  ...
}:
let
  cfg = config.services.llm-server;

  instance = import ./module/options.nix {
    inherit self lib pkgs;
    cudaByDefault = config.nixpkgs.config.cudaSupport or false;
  };
  rules = import ./module/rules.nix { inherit config lib; };
  units = import ./module/units.nix { inherit lib pkgs utils; };
  worker = import ./module/worker.nix { inherit lib utils; };

  # The plain options are an instance like the others.
  running = lib.filterAttrs (_: one: one.enable) ({ default = cfg; } // cfg.instances);
  made = lib.mapAttrsToList units running;
in
{
  options.services.llm-server = lib.mkOption {
    default = { };
    description = "llm-server: one pinned language model, served over an OpenAI-compatible HTTP API.";
    type = lib.types.submodule [
      instance
      {
        options.enable = lib.mkEnableOption "llm-server as these options describe it";
        options.rpcWorker = worker.options;
        options.instances = lib.mkOption {
          type = lib.types.attrsOf (
            lib.types.submodule [
              instance
              {
                options.enable = lib.mkOption {
                  type = lib.types.bool;
                  default = true;
                  description = "Whether this instance runs.";
                };
              }
            ]
          );
          default = { };
          example = lib.literalExpression ''
            {
              embed.settings = {
                listen = "127.0.0.1:8081";
                model.name = "nomic-embed-text-v1.5-q8_0";
              };
            }
          '';
          description = ''
            Further servers, each with all the options of the first. The units of instance `x` are `llm-server-x.service`
            and `llm-server-x.socket`. They run whether `services.llm-server.enable` is set or not: that one is for
            the server that the plain options describe.
          '';
        };
      }
    ];
  };

  config = lib.mkIf (running != { } || cfg.rpcWorker.enable) {
    assertions = rules.assertions running ++ worker.assertions cfg;
    warnings = rules.warnings running;

    systemd.services = lib.mkMerge (map (unit: unit.services) made ++ [ (worker.services cfg) ]);
    systemd.sockets = lib.mkMerge (map (unit: unit.sockets) made);

    # A configuration that the program refuses fails here, not at the next boot.
    system.checks = lib.concatMap (unit: unit.checks) made;

    networking.firewall.allowedTCPPorts =
      lib.concatMap (one: lib.optional (one.openFirewall && one.address.port != null) one.address.port) (
        lib.attrValues running
      )
      ++ worker.ports cfg;

    # Its device node must be there before the service starts.
    boot =
      lib.mkIf
        (
          config.hardware.graphics.enable
          && (lib.any (one: one.cuda) (lib.attrValues running) || (cfg.rpcWorker.enable && cfg.cuda))
        )
        {
          kernelModules = [ "nvidia-uvm" ];
        };
  };
}
