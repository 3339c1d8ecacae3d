# The package is whole, relocatable, small, and uses the CPU that it finds: `inspect.sh` says how.
{ pkgs, llm-server, ... }:
pkgs.runCommandCC "llm-server-package" { } ''
  bash ${../inspect.sh} ${llm-server} | tee $out
''
