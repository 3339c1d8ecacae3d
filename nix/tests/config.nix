# config.ncl is right, and a wrong option is refused with its place.
{ pkgs, llm-server, ... }:
pkgs.runCommand "llm-server-config" { } ''
  ${llm-server}/bin/llm-server check ${../../config.ncl} --lock ${../../models.lock} | tee $out
  if ${llm-server}/bin/llm-server check ${../../config.ncl} --lock ${../../models.lock} --set 'engine.parallel = 0' 2> refused; then
    echo "engine.parallel = 0 was accepted" >&2
    exit 1
  fi
  grep -q parallel refused || { cat refused >&2; exit 1; }
''
