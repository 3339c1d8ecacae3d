#!/usr/bin/env bash
# Makes a Debian package of the release build: llm-server_VERSION_ARCH.deb in target/. Run `make build` first.
# A CUDA plugin (`make cuda`) goes into it if it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

built=target/release
[ -x "$built/llm-server" ] || { echo "there is no $built/llm-server: run make build" >&2; exit 1; }
version=$("$built/llm-server" --version | cut -d ' ' -f 2)
architecture=$(dpkg --print-architecture)

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
share=$root/usr/share

# The program looks for its libraries in ../lib/llm-server, and there for backends.
install -Ds -m755 -t "$root/usr/bin" "$built/llm-server"
install -Ds -m644 -t "$root/usr/lib/llm-server" "$built"/lib/lib{ggml,ggml-base,llama,llama-common,mtmd}.so.[0-9]
install -Ds -m644 -t "$root/usr/lib/llm-server/backends" "$built"/backends/*.so
if [ -f "$built/backends/cuda.json" ]; then
    install -m644 -t "$root/usr/lib/llm-server/backends" "$built/backends/cuda.json"
fi

for unit in contrib/systemd/*.{service,socket}; do
    [ ! -f "$unit" ] || install -Dm644 -t "$root/usr/lib/systemd/system" "$unit"
done
install -Dm644 -t "$share/doc/llm-server" README.md CHANGELOG.md config.ncl
install -Dm644 LICENSE-MIT "$share/doc/llm-server/copyright"
mkdir -p "$share"/{man/man1,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
"$built/llm-server" completions bash > "$share/bash-completion/completions/llm-server"
"$built/llm-server" completions zsh > "$share/zsh/vendor-completions/_llm-server"
"$built/llm-server" completions fish > "$share/fish/vendor_completions.d/llm-server.fish"
"$built/llm-server" man "$share/man/man1"
gzip -9n "$share"/man/man1/*

# What it needs of the system, by the libraries that it names and that are not its own.
needs=$(
    mkdir -p "$root/debian" && cd "$root" && printf 'Source: llm-server\n\nPackage: llm-server\nArchitecture: any\n' > debian/control
    dpkg-shlibdeps -O --ignore-missing-info -l"$root/usr/lib/llm-server" \
        usr/bin/llm-server usr/lib/llm-server/*.so.* usr/lib/llm-server/backends/libggml-cpu-*.so \
        2> >(grep -v warning: >&2) |
        sed -n 's/^shlibs:Depends=//p'
)
rm -rf "$root/debian"

mkdir -p "$root/DEBIAN"
cat > "$root/DEBIAN/control" <<CONTROL
Package: llm-server
Version: $version
Architecture: $architecture
Maintainer: the authors of llm-server <noreply@localhost>
Section: net
Priority: optional
Depends: $needs
Recommends: ca-certificates
Suggests: python3-pip
Installed-Size: $(du -sk "$root/usr" | cut -f 1)
Description: $(sed -n 's/^description = "\(.*\)"$/\1/p' Cargo.toml)
 The engine is llama.cpp; weights, settings and engine are pinned and shown in
 every answer as a fingerprint.
CONTROL

package=target/llm-server_${version}_$architecture.deb
dpkg-deb --build --root-owner-group -Zxz "$root" "$package" >/dev/null
ls -l "$package"
