# The table of options in docs/configuration.md is what the built program prints.
{ pkgs, llm-server, ... }:
pkgs.runCommand "llm-server-docs" { } ''
  ${llm-server}/bin/llm-server schema > generated
  sed -n '/^<!-- options:/,/^<!-- options end -->/p' ${../../docs/configuration.md} | sed '1d;$d' > committed
  diff -u committed generated
  wc -l < generated | tee $out
''
