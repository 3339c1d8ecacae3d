# `settings.listen` taken apart: what systemd is to listen on, which port that is, and who can reach it.
{ lib }:
text:
let
  path = lib.removePrefix "unix:" text;
  parts = builtins.match "(localhost|[0-9.]+|\\[[0-9a-fA-F:]+])?:([0-9]{1,5})" text;
  host = if parts == null then null else lib.head parts;
  isPath = lib.hasPrefix "unix:/" text;
in
{
  isRight = isPath || host != null;
  # systemd does not resolve names.
  stream = if isPath then path else lib.replaceStrings [ "localhost" ] [ "127.0.0.1" ] text;
  port = if isPath || parts == null then null else lib.toIntBase10 (lib.elemAt parts 1);
  isPrivate =
    isPath || host == "localhost" || lib.hasPrefix "127." text || lib.hasPrefix "[::1]:" text;
}
