# What is refused or warned about before anything is built. What the program's own schema refuses is left to it.
{ config, lib }:
let
  option =
    name: if name == "default" then "services.llm-server" else "services.llm-server.instances.${name}";

  # Settings that a configuration file may not stand beside: all but those that the units need.
  written =
    settings:
    let
      rest = removeAttrs settings [
        "listen"
        "model"
        "engine"
        "limits"
      ];
      under = name: removeAttrs (settings.${name} or { });
    in
    lib.attrNames rest
    ++ map (key: "model.${key}") (lib.attrNames (under "model" [ "name" ]))
    ++ map (key: "engine.${key}") (lib.attrNames (under "engine" [ "rpc" ]))
    ++ map (key: "limits.${key}") (lib.attrNames (under "limits" [ "drain" ]));

  inStore = lib.hasPrefix "${builtins.storeDir}/";

  ofInstance =
    name: one:
    let
      this = option name;
      inherit (one) settings;
      lock = lib.importTOML one.modelsFile;
      unknown = lib.filter (model: !(lock ? ${model})) (lib.attrNames one.models);
      secrets =
        one.apiKeyFiles ++ lib.optional (one.fetchEnvironmentFile != null) one.fetchEnvironmentFile;
    in
    [
      {
        assertion =
          builtins.match "[a-z0-9]([a-z0-9-]*[a-z0-9])?" name != null
          && !lib.hasPrefix "models-" name
          && name != "rpc";
        message = "${this}: the name of an instance is part of the names of its units: small letters, digits and '-', not 'rpc', and not beginning with 'models-'";
      }
      {
        assertion = settings.model.name != null || one.configFile != null;
        message = "${this}.settings.model.name is not set: give the name of a model in models.lock";
      }
      {
        assertion = settings.model.name != null || one.configFile == null || one.models != { };
        message = "${this}.configFile names a model that the units do not know: repeat it as ${this}.settings.model.name";
      }
      {
        assertion = unknown == [ ];
        message = "${this}: the lock has no model ${lib.concatStringsSep ", " unknown}; it has ${lib.concatStringsSep ", " (lib.attrNames lock)}";
      }
      {
        assertion = one.configFile == null || written settings == [ ];
        message = "${this}: configFile and settings are both given; with a file, settings may say listen, model.name, engine.rpc and limits.drain only, not ${lib.concatStringsSep ", " (written settings)}";
      }
      {
        assertion = one.address.isRight && one.address.port != 0;
        message = "${this}.settings.listen = \"${settings.listen}\": expected host:port with an IP address or localhost and a port above 0, or unix:/absolute/path";
      }
      {
        assertion =
          (one.memory.max != "auto" && one.memory.low != "auto")
          || one.configFile != null
          || builtins.isInt (settings.cache.ram or null);
        message = "${this}.memory: \"auto\" needs ${this}.settings.cache.ram as a number of MiB; by itself it takes a part of what the limit would leave";
      }
      {
        assertion = !(settings ? auth.key_files);
        message = "${this}.settings.auth.key_files: name the files in ${this}.apiKeyFiles, through which the service may read them";
      }
      {
        assertion = !lib.any inStore secrets;
        message = "${this}: ${lib.concatStringsSep ", " (lib.filter inStore secrets)} lies in the Nix store, which everybody can read; name a file outside of it as a string, such as \"/run/secrets/llm-server-keys\"";
      }
      {
        assertion = one.address.isPrivate || one.apiKeyFiles != [ ];
        message = "${this}.settings.listen = \"${settings.listen}\" is open to other machines and needs ${this}.apiKeyFiles; or listen on 127.0.0.1 or unix:/path";
      }
    ];

  # Instances by what they listen on; more than one in a place is one too many.
  crowded =
    running:
    lib.filterAttrs (_: names: lib.length names > 1) (
      lib.groupBy (name: running.${name}.address.stream) (lib.attrNames running)
    );
in
{
  assertions =
    running:
    lib.concatLists (lib.mapAttrsToList ofInstance running)
    ++ lib.mapAttrsToList (stream: names: {
      assertion = false;
      message = "services.llm-server: the instances ${lib.concatStringsSep ", " names} all listen on ${stream}";
    }) (crowded running);

  warnings =
    running:
    lib.concatLists (
      lib.mapAttrsToList (
        name: one:
        lib.optional (one.cuda && !config.hardware.graphics.enable)
          "${option name}.acceleration is \"cuda\" and hardware.graphics.enable is off: the driver's libraries will not be found, and the server will compute on the CPU"
        ++
          lib.optional (one.openFirewall && one.address.isPrivate)
            "${option name}.openFirewall is set, but ${one.settings.listen} cannot be reached from other machines"
      ) running
    );
}
