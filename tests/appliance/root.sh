#!/usr/bin/env bash
# root.sh FOLDER SUITE: a small Debian with systemd in FOLDER, made once and then kept.
set -euo pipefail
folder=$1 suite=$2

have() { command -v "$1" >/dev/null 2>&1; }

packages=()
have systemd-nspawn || packages+=(systemd-container)
have debootstrap || packages+=(debootstrap)
have nsenter || packages+=(util-linux)
have python3 || packages+=(python3)
have curl || packages+=(curl)
if [ ${#packages[@]} -gt 0 ]; then
    have apt-get || { echo "missing here (names of Debian's packages): ${packages[*]}" >&2; exit 1; }
    echo "installing with apt: ${packages[*]}"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}"
fi

[ -e "$folder/.complete" ] && exit 0
echo "making a root of Debian $suite in $folder"
rm -rf "$folder"
mkdir -p "$folder"
# openssl and libgomp1 bring what the release binary is linked with.
debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,openssl,libgomp1 "$suite" "$folder" >"$folder.log" 2>&1 ||
    { tail -n 20 "$folder.log" >&2; exit 1; }
rm -rf "$folder"/var/cache/apt/archives/*.deb
touch "$folder/.complete"
