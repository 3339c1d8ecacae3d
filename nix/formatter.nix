# `nix fmt`: Rust and Nix, the files named or all of the project; `--check` changes nothing.
{
  lib,
  writeShellApplication,
  git ? null,
  nixfmt ? null,
  rustfmt ? null,
}:
writeShellApplication {
  name = "llm-server-format";
  runtimeInputs = lib.remove null [
    git
    nixfmt
    rustfmt
  ];
  text = ''
    options=()
    files=()
    for argument in "$@"; do
      case $argument in
        -*) options+=("$argument") ;;
        *) files+=("$argument") ;;
      esac
    done
    if [ "''${#files[@]}" -eq 0 ]; then
      mapfile -t files < <(git ls-files '*.nix' '*.rs')
    fi
    nix=()
    rust=()
    for file in "''${files[@]}"; do
      case $file in
        *.nix) nix+=("$file") ;;
        *.rs) rust+=("$file") ;;
      esac
    done
    [ "''${#nix[@]}" -eq 0 ] || nixfmt "''${options[@]}" "''${nix[@]}"
    [ "''${#rust[@]}" -eq 0 ] || rustfmt --edition 2024 "''${options[@]}" "''${rust[@]}"
  '';
}
