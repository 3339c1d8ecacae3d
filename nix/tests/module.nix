# What the module makes of options, by evaluation alone: each case is a sentence that can be false.
{
  lib,
  nixpkgs,
  pkgs,
  self,
  llm-server,
  ...
}:
let
  # Rendering units needs a program to name, not the real one.
  stub = pkgs.writeShellScriptBin "llm-server" "exit 1";

  text = builtins.unsafeDiscardStringContext;
  has = part: whole: lib.hasInfix (text part) (text whole);

  system =
    module:
    nixpkgs.lib.nixosSystem {
      system = pkgs.stdenv.hostPlatform.system;
      modules = [
        self.nixosModules.default
        {
          nixpkgs.hostPlatform = pkgs.stdenv.hostPlatform.system;
          system.stateVersion = "26.05";
          boot.loader.grub.enable = false;
          fileSystems."/" = {
            device = "none";
            fsType = "tmpfs";
          };
        }
        module
      ];
    };
  evaluated = module: (system module).config;
  described = settings: {
    services.llm-server = {
      enable = true;
      package = stub;
    }
    // settings;
  };
  server = settings: evaluated (described settings);

  tiny = "smollm2-135m-instruct-q4_1";
  big = "qwen3.5-35b-a3b-q4_k_m";

  # The assertions that fail, without the system that they keep from being made.
  refusal =
    settings:
    lib.concatMapStringsSep "\n" (one: one.message) (
      lib.filter (one: !one.assertion) (system (described settings)).options.assertions.value
    );
  refuses = settings: part: has part (refusal settings);

  plain = server { settings.model.name = tiny; };
  plainService = plain.systemd.services.llm-server;
  plainStart = plainService.serviceConfig.ExecStart;

  cuda = server {
    acceleration = "cuda";
    settings.model.name = tiny;
  };
  gpu = cuda.systemd.services.llm-server;

  fetched = server { settings.model.name = big; };
  download = fetched.systemd.services.llm-server-models-default;

  two = server {
    settings.model.name = tiny;
    instances.embed = {
      package = stub;
      settings = {
        listen = "unix:/run/embed.sock";
        model.name = "all-minilm-l6-v2-q8_0";
        limits.drain = 90;
      };
    };
  };
  alone = evaluated {
    services.llm-server.instances.only = {
      package = stub;
      settings.model.name = tiny;
    };
  };

  public = server {
    apiKeyFiles = [ "/run/secrets/keys" ];
    openFirewall = true;
    settings = {
      listen = "0.0.0.0:80";
      model.name = tiny;
    };
  };

  file = server {
    configFile = ../../config.ncl;
    settings = {
      listen = "localhost:9000";
      model.name = tiny;
    };
  };

  limited = server {
    memory = {
      max = "40G";
      low = "24G";
    };
    settings.model.name = tiny;
  };

  planned = server {
    memory.max = "auto";
    settings = {
      model.name = tiny;
      cache.ram = 512;
    };
  };
  plannedService = planned.systemd.services.llm-server.serviceConfig;

  # A server that uses two machines, and one of these machines.
  distributed =
    workers:
    (server {
      settings = {
        model.name = tiny;
        engine.rpc = workers;
      };
    }).systemd.services.llm-server.serviceConfig;
  several = distributed [
    "10.0.0.2:50052"
    "10.0.0.3:50052"
  ];
  lending =
    settings:
    system {
      services.llm-server = {
        package = stub;
        rpcWorker = {
          enable = true;
        }
        // settings;
      };
    };
  lent = settings: (lending settings).config.systemd.services.llm-server-rpc.serviceConfig;
  lendsNot =
    settings: part:
    has part (
      lib.concatMapStringsSep "\n" (one: one.message) (
        lib.filter (one: !one.assertion) (lending settings).options.assertions.value
      )
    );

  start = config: name: config.systemd.services.${name}.serviceConfig.ExecStart;

  cases = {
    "by default a socket on the loopback starts a service that says when it is ready" =
      plain.systemd.sockets.llm-server.listenStreams == [ "127.0.0.1:8080" ]
      && plainService.serviceConfig.Type == "notify-reload"
      && plainService.requires == [ "llm-server.socket" ];
    "by default the model is loaded at boot" = plainService.wantedBy == [ "multi-user.target" ];
    "by default nothing is opened in the firewall" = plain.networking.firewall.allowedTCPPorts == [ ];
    "by default no device is allowed and there is no network" =
      plainService.serviceConfig.PrivateDevices
      && plainService.serviceConfig.PrivateNetwork
      && !(plainService.serviceConfig ? DeviceAllow);
    "a small model lies in the store, and nothing is downloaded" =
      lib.hasPrefix builtins.storeDir (plainService.environment.LLM_SERVER_MODELS or "")
      && !(plain.systemd.services ? llm-server-models-default);
    "the configuration that is served is the one that was checked" =
      let
        argument = lib.findFirst (has "llm-server.json") "" (lib.splitString "\"" plainStart);
      in
      argument != "" && has argument (lib.head plain.system.checks).passthru.command;

    "CUDA opens NVIDIA's nodes and no others" =
      gpu.serviceConfig.DeviceAllow == [ "char-nvidia* rw" ]
      && gpu.serviceConfig.DevicePolicy == "closed"
      && !gpu.serviceConfig.PrivateDevices;
    "CUDA keeps its compiled kernels" = gpu.environment.CUDA_CACHE_PATH == "/var/cache/llm-server/cuda";
    "CUDA without the driver's libraries is warned about" =
      lib.any (has "hardware.graphics.enable") cuda.warnings;
    "CUDA has its node made before the service" =
      lib.elem "nvidia-uvm"
        (evaluated {
          hardware.graphics.enable = true;
          services.llm-server = {
            enable = true;
            package = stub;
            acceleration = "cuda";
            settings.model.name = tiny;
          };
        }).boot.kernelModules;

    "a large model is downloaded before the server starts" =
      lib.elem "llm-server-models-default.service" fetched.systemd.services.llm-server.requires
      && lib.elem "llm-server-models-default.service" fetched.systemd.services.llm-server.after
      && has big download.serviceConfig.ExecStart;
    "a large model brings its companions" = has "mmproj" "${toString (
      lib.attrNames fetched.services.llm-server.models
    )}";
    "what is downloaded is chosen for each model" =
      (server {
        settings.model.name = tiny;
        models.${tiny}.from = "fetch";
      }).systemd.services
        ? llm-server-models-default;
    "the download has a network and the server has none" =
      !(download.serviceConfig ? PrivateNetwork)
      && fetched.systemd.services.llm-server.serviceConfig.PrivateNetwork;

    "a server that fetches images has a network" =
      !(server {
        settings = {
          model.name = tiny;
          images.fetch = "https";
        };
      }).systemd.services.llm-server.serviceConfig.PrivateNetwork;

    "two instances have their own units, settings and addresses" =
      two.systemd.sockets.llm-server-embed.listenStreams == [ "/run/embed.sock" ]
      && two.systemd.services.llm-server-embed.serviceConfig.TimeoutStopSec == 150
      && start two "llm-server-embed" != start two "llm-server"
      && lib.length two.system.checks == 2;
    "an instance runs without the default one" =
      alone.systemd.services ? llm-server-only && !(alone.systemd.services ? llm-server);
    "two instances on one address are refused" = refuses {
      settings.model.name = tiny;
      instances.other = {
        package = stub;
        settings.model.name = tiny;
      };
    } "all listen on 127.0.0.1:8080";
    "an instance whose name is no name of a unit is refused" = refuses {
      settings.model.name = tiny;
      instances."Not this" = {
        package = stub;
        settings.model.name = tiny;
      };
    } "small letters";

    "an instance that would take the worker's unit is refused" = refuses {
      settings.model.name = tiny;
      instances.rpc = {
        package = stub;
        settings.model.name = tiny;
      };
    } "not 'rpc'";

    "keys reach the service as credentials" =
      public.systemd.services.llm-server.serviceConfig.LoadCredential
      == [ "api-keys-0:/run/secrets/keys" ];
    "a reload hands over new keys" =
      public.systemd.services.llm-server.serviceConfig.RefreshOnReload == "credentials";
    "a public port with keys may be opened" = public.networking.firewall.allowedTCPPorts == [ 80 ];
    "a key file in the store is refused" = refuses {
      settings.model.name = tiny;
      apiKeyFiles = [ (pkgs.writeText "keys" "sk-1") ];
    } "lies in the Nix store";
    "a secret for the download in the store is refused" = refuses {
      settings.model.name = tiny;
      fetchEnvironmentFile = "${pkgs.writeText "env" "HF_TOKEN=hf_1"}";
    } "lies in the Nix store";
    "a public listener without keys is refused" = refuses {
      settings.model.name = tiny;
      settings.listen = "0.0.0.0:8080";
    } "needs services.llm-server.apiKeyFiles";
    "key files in the settings are refused" = refuses {
      settings.model.name = tiny;
      settings.auth.key_files = [ "/run/secrets/keys" ];
    } "services.llm-server.apiKeyFiles";
    "an address without a port is refused" = refuses {
      settings.model.name = tiny;
      settings.listen = "127.0.0.1";
    } "expected host:port";
    "a model that the lock does not have is refused" = refuses {
      settings.model.name = "smollm3";
    } "has no model smollm3";
    "no model is refused" = refuses { } "settings.model.name is not set";

    "a file is used as it is, under what the units know" =
      file.systemd.sockets.llm-server.listenStreams == [ "127.0.0.1:9000" ]
      && has "config.ncl" file.systemd.services.llm-server.serviceConfig.ExecStart
      && has "--set=listen" file.systemd.services.llm-server.serviceConfig.ExecStart;
    "a file beside other settings is refused" = refuses {
      configFile = ../../config.ncl;
      settings = {
        model.name = tiny;
        engine.context = 2048;
      };
    } "not engine";

    "memory is bounded as the plan says, by three steps of which only two have rights" =
      map (lib.substring 0 2) (map text plannedService.ExecStartPre) == [
        "+/"
        "-/"
        "-+"
      ]
      && !(plannedService ? MemoryMax)
      && !(plannedService ? MemoryLow);
    "a limit by the plan needs a bound for kept prompts" = refuses {
      memory.low = "auto";
      settings.model.name = tiny;
    } "settings.cache.ram as a number";

    "workers can be reached, and nobody else" =
      !several.PrivateNetwork
      && several.IPAddressDeny == "any"
      &&
        several.IPAddressAllow == [
          "10.0.0.2"
          "10.0.0.3"
        ];
    "workers known by their names open the network" =
      let
        named = distributed [ "worker.example:50052" ];
      in
      named.IPAddressDeny == [ ] && !(named ? IPAddressAllow);
    "without workers there is no network" =
      (distributed [ ]).PrivateNetwork && (distributed [ ]).IPAddressDeny == "any";
    "workers may stand beside a configuration file, which the units cannot read" =
      has "--set=engine.rpc = [\\\"10.0.0.2:50052\\\"]"
        (
          start (server {
            configFile = ../../config.ncl;
            settings = {
              model.name = tiny;
              engine.rpc = [ "10.0.0.2:50052" ];
            };
          }) "llm-server"
        );
    "a machine that only lends has no server" =
      let
        services = (lending { }).config.systemd.services;
      in
      services ? llm-server-rpc && !(services ? llm-server);
    "a worker lends to its own machine alone unless told" =
      (lent { }).IPAddressDeny == "any"
      && (lent { }).IPAddressAllow == [ "localhost" ]
      && !has "--trust-network" (lent { }).ExecStart;
    "a worker lends to the servers that are named" =
      let
        open = lent {
          listen = "10.0.0.2:50052";
          allowFrom = [ "10.0.0.1" ];
          devices = [ "CUDA0" ];
        };
      in
      open.IPAddressAllow == [
        "localhost"
        "10.0.0.1"
      ]
      && has "--trust-network" open.ExecStart
      && has "--devices=CUDA0" open.ExecStart;
    "a worker that lends to everybody is refused" = lendsNot {
      listen = "0.0.0.0:50052";
    } "rpcWorker.allowFrom";
    "a worker without an IPv4 address is refused" = lendsNot {
      listen = "[::1]:50052";
    } "expected an IPv4 address";

    "memory is bounded as asked" =
      limited.systemd.services.llm-server.serviceConfig.MemoryMax == "40G"
      && limited.systemd.services.llm-server.serviceConfig.MemoryLow == "24G";
    "opening the firewall for the loopback is warned about" =
      lib.any (has "cannot be reached")
        (server {
          settings.model.name = tiny;
          openFirewall = true;
        }).warnings;
  };
  failed = lib.attrNames (lib.filterAttrs (_: holds: !holds) cases);

  # A name that no schema has, and a number out of its range: what the check of the build says.
  wrong =
    settings:
    (lib.head
      (evaluated {
        services.llm-server = {
          enable = true;
          package = llm-server;
          inherit settings;
        };
      }).system.checks
    ).passthru.command;
  unknown = wrong {
    model.name = tiny;
    engine.contxt = 2048;
  };
  outside = wrong {
    model.name = tiny;
    engine.context = 100;
  };
  right = wrong { model.name = tiny; };
in
if failed != [ ] then
  throw "false of the module:\n${lib.concatMapStrings (name: "- ${name}\n") failed}"
else
  pkgs.runCommand "module" { } ''
    ${right} | tee $out
    refused() {
      if "$@" 2> said; then
        echo "a wrong setting was accepted: $*" >&2
        exit 1
      fi
      cat said
    }
    refused ${unknown}
    grep -F 'unknown field `contxt`' said
    grep -F 'did you mean `context`?' said
    refused ${outside}
    grep -F 'expected whole number 256' said
    # Drawn: the file, the line and the place.
    grep -F '┌─ ${builtins.storeDir}/' said
    grep -F '100' said
  ''
