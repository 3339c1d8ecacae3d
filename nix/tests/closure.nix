# What a machine has to copy to run the server: no compiler, no source, not more than stated here.
{
  lib,
  pkgs,
  llm-server,
  ...
}:
let
  # The server itself is 65 MB; the rest is the C and C++ runtime.
  most_mb = 200;
  unwanted = [
    "cargo-vendor-dir"
    "clang"
    "cmake"
    "gcc-wrapper"
    "llama-cpp-sys"
    "openssl"
    "rustc"
  ];
in
pkgs.runCommand "llm-server-closure"
  {
    exportReferencesGraph = [
      "graph"
      llm-server
    ];
  }
  ''
    grep -o "^$NIX_STORE/[^/]*$" graph | sort -u > paths
    if grep -E '${lib.concatStringsSep "|" unwanted}' paths; then
      echo "the closure must have none of these" >&2
      exit 1
    fi
    size_mb=$(xargs du -sm --apparent-size < paths | awk '{ sum += $1 } END { print sum }')
    if [ "$size_mb" -gt ${toString most_mb} ]; then
      echo "the closure has $size_mb MB, expected at most ${toString most_mb}" >&2
      exit 1
    fi
    echo "$size_mb MB in $(wc -l < paths) paths" | tee $out
  ''
