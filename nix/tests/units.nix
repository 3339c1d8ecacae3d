# The units as systemd reads them: no line it does not know, and no more rights than allowed. Those of contrib/systemd,
# for other distributions, are held to the same.
{
  lib,
  nixpkgs,
  pkgs,
  self,
  ...
}:
let
  stub = pkgs.writeShellScriptBin "llm-server" "exit 1";

  # Fetched, so that no unit asks for a model to be built.
  model = "smollm2-135m-instruct-q4_1";
  instance = {
    package = stub;
    settings.model.name = model;
    models.${model}.from = "fetch";
  };
  inherit
    (nixpkgs.lib.nixosSystem {
      system = pkgs.stdenv.hostPlatform.system;
      modules = [
        self.nixosModules.default
        {
          nixpkgs.hostPlatform = pkgs.stdenv.hostPlatform.system;
          hardware.graphics.enable = true;
          services.llm-server = instance // {
            enable = true;
            apiKeyFiles = [ "/run/secrets/keys" ];
            memory.max = "40G";
            rpcWorker.enable = true;
            instances.far = lib.recursiveUpdate instance {
              memory.max = "auto";
              settings = {
                listen = "unix:/run/far.sock";
                engine.rpc = [ "10.0.0.2:50052" ];
                cache.ram = 512;
              };
            };
            instances.gpu = lib.recursiveUpdate instance {
              acceleration = "cuda";
              settings.listen = "unix:/run/gpu.sock";
            };
          };
        }
      ];
    })
    config
    ;
  ours = lib.filterAttrs (name: _: lib.hasPrefix "llm-server" name) config.systemd.units;
  module = lib.concatMapStrings (
    name: "cp ${pkgs.writeText name ours.${name}.text} module/${name}\n"
  ) (lib.attrNames ours);

  contrib = ../../contrib/systemd;
  hardening = import ../module/hardening.nix;

  # A unit's settings as a list of values for each name; an empty value begins the list anew.
  parsed =
    file:
    lib.foldl' (
      settings: line:
      let
        parts = builtins.match "([A-Za-z]+)=(.*)" line;
        name = lib.head parts;
        value = lib.elemAt parts 1;
      in
      if parts == null then
        settings
      else
        settings // { ${name} = if value == "" then [ ] else settings.${name} or [ ] ++ [ value ]; }
    ) { } (lib.splitString "\n" (builtins.readFile (contrib + "/${file}")));

  words =
    value:
    if value == true then
      [ "true" ]
    else if value == false then
      [ "false" ]
    else
      lib.concatMap (one: lib.filter (word: word != "") (lib.splitString " " (toString one))) (
        lib.toList value
      );
  differ =
    file: wanted:
    let
      found = parsed file;
    in
    map (name: "${file}: ${name}") (
      lib.filter (name: words (found.${name} or [ "(unset)" ]) != words wanted.${name}) (
        lib.attrNames wanted
      )
    );
  different =
    differ "llm-server.service" hardening.serve
    ++ differ "llm-server@.service" hardening.serve
    ++ differ "llm-server-models@.service" hardening.fetch
    ++ differ "llm-server-rpc.service" hardening.worker
    ++ differ "rpc.conf" hardening.rpc
    ++ differ "gpu.conf" hardening.gpu;
in
if different != [ ] then
  throw "not as nix/module/hardening.nix says:\n${
    lib.concatMapStrings (line: "- ${line}\n") different
  }"
else
  pkgs.runCommand "units" { nativeBuildInputs = [ pkgs.systemd ]; } ''
    mkdir module contrib
    ${module}
    cp ${contrib}/*.service ${contrib}/*.socket contrib
    chmod -R u+w contrib
    # The program that they name is not installed here.
    sed -i 's,/usr/bin/llm-server,${lib.getExe stub},' contrib/*.service
    for kind in service socket; do
      cp contrib/llm-server@.$kind contrib/llm-server@one.$kind
    done
    cp contrib/llm-server-models@.service contrib/llm-server-models@one.service
    rm contrib/*@.*
    for change in gpu rpc memory; do
      mkdir -p contrib-$change/llm-server.service.d
      cp contrib/llm-server.{service,socket} contrib-$change
      cp ${contrib}/$change.conf contrib-$change/llm-server.service.d
    done

    for folder in module contrib contrib-gpu contrib-rpc contrib-memory; do
      echo "== $folder"
      (cd "$folder" && systemd-analyze verify --man=no --recursive-errors=one ./*.service $(ls ./*.socket 2>/dev/null)) > said 2>&1 || true
      # Not looked for: tools that a package set may lack, other units, and what older versions of systemd do not know.
      if grep -Ev "is not executable: No such file|^[^ ]*/(lib|etc)/systemd/|Unknown key '(RestartSteps|RestartMaxDelaySec|RestartMode|RefreshOnReload)'|service type, ignoring: notify-reload" said; then
        exit 1
      fi
    done

    # In tenths: what may be said of each by `systemd-analyze security`.
    exposed() {
      (cd "$2" && systemd-analyze security --no-pager --offline=true --threshold="$1" "$3") > said || { cat said; exit 1; }
      tail -n 1 said | tee -a $out
    }
    exposed 15 module llm-server.service
    exposed 25 module llm-server-gpu.service
    exposed 15 module llm-server-models-default.service
    exposed 15 contrib llm-server.service
    exposed 15 contrib llm-server@one.service
    exposed 15 contrib llm-server-models@one.service
    exposed 15 module llm-server-far.service
    exposed 15 module llm-server-rpc.service
    exposed 15 contrib llm-server-rpc.service
    exposed 15 contrib-rpc llm-server.service
    exposed 15 contrib-memory llm-server.service
    exposed 25 contrib-gpu llm-server.service
  ''
