# `services.llm-server.rpcWorker`: lends this machine's devices to the server of another one.
{ lib, utils }:
let
  inherit (lib) mkOption types;
  hardening = import ./hardening.nix;
  listen = import ./listen.nix { inherit lib; };
in
{
  options = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether this machine lends its devices to a server on another machine that names it in `settings.engine.rpc`, by
        `llm-server-rpc.service`. `package` and `acceleration` are those of `services.llm-server`.
      '';
    };
    listen = mkOption {
      type = types.str;
      default = "127.0.0.1:50052";
      example = "10.0.0.2:50052";
      description = "IPv4 address and port.";
    };
    allowFrom = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "10.0.0.1" ];
      description = ''
        Addresses of servers that may connect; the kernel lets no other through. The protocol asks nobody who they are and
        encrypts nothing: whoever connects can run code as this service. This machine itself always may.
      '';
    };
    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the firewall lets other machines reach the port; `allowFrom` still counts.";
    };
    devices = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "CUDA0" ];
      description = "Devices to lend, by the engine's names. `[ ]`: every GPU, else the CPU.";
    };
    threads = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      description = "Threads of a CPU that is lent. `null`: the physical cores.";
    };
    cache = mkOption {
      type = types.bool;
      default = false;
      description = "Whether large tensors are kept in `/var/cache/llm-server-rpc`, so that the same model need not be sent again. Nothing is ever deleted there.";
    };
  };

  assertions =
    cfg:
    let
      one = cfg.rpcWorker;
      address = listen one.listen;
    in
    lib.optionals one.enable [
      {
        assertion = builtins.match "[0-9.]+:[1-9][0-9]{0,4}" one.listen != null;
        message = "services.llm-server.rpcWorker.listen = \"${one.listen}\": expected an IPv4 address and a port above 0";
      }
      {
        assertion = address.isPrivate || one.allowFrom != [ ];
        message = "services.llm-server.rpcWorker.listen = \"${one.listen}\" is open to other machines: name the servers' addresses in services.llm-server.rpcWorker.allowFrom, or listen on 127.0.0.1";
      }
    ];

  ports =
    cfg:
    lib.optional (cfg.rpcWorker.enable && cfg.rpcWorker.openFirewall)
      (listen cfg.rpcWorker.listen).port;

  services =
    cfg:
    let
      one = cfg.rpcWorker;
    in
    lib.optionalAttrs one.enable {
      llm-server-rpc = {
        description = "llm-server: devices lent to another machine";
        wantedBy = [ "multi-user.target" ];
        wants = [ "network-online.target" ];
        after = [ "network-online.target" ];
        environment =
          lib.optionalAttrs cfg.cuda { CUDA_CACHE_PATH = "/var/cache/llm-server-rpc/cuda"; }
          // cfg.environment;
        serviceConfig =
          hardening.worker
          // lib.optionalAttrs cfg.cuda hardening.gpu
          // {
            Type = "notify";
            NotifyAccess = "main";
            ExecStart = utils.escapeSystemdExecArgs (
              [
                (lib.getExe cfg.package)
                "rpc-worker"
                "--listen=${one.listen}"
              ]
              ++ lib.optional (!(listen one.listen).isPrivate) "--trust-network"
              ++ lib.optional (one.devices != [ ]) "--devices=${lib.concatStringsSep "," one.devices}"
              ++ lib.optional (one.threads != null) "--threads=${toString one.threads}"
              ++ lib.optional one.cache "--cache=/var/cache/llm-server-rpc/tensors"
            );
            IPAddressAllow = [ "localhost" ] ++ one.allowFrom;
            DynamicUser = true;
            CacheDirectory = "llm-server-rpc";
            CacheDirectoryMode = "0700";
            Restart = "always";
            RestartSec = "500ms";
            RestartSteps = 8;
            RestartMaxDelaySec = "1min";
            # A wrong command line stays so until somebody acts.
            RestartPreventExitStatus = "2 78";
          };
      };
    };
}
