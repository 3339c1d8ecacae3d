#!/usr/bin/env bash
# Packs what benches/gpu.sh needs on a bare GPU machine without cargo or a network: the release binary with its
# libraries, the engine crate's ggml tree, and the source of llama-server of the same version. About 40 MB.
set -euo pipefail
cd "$(dirname "$0")/.."

OUT=target/gpu
PEER=target/peer/11434.0.0/llama.cpp
[ -x target/release/llm-server ] || { echo "target/release/llm-server is missing: make build" >&2; exit 1; }
[ -d "$PEER" ] || benches/llama-server.sh source >&2
manifest=$(cargo metadata --format-version 1 --locked | python3 -c '
import json, sys
print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "llama-cpp-sys-2"))')

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$OUT" "$stage/ours/lib" "$stage/llama.cpp"
strip -o "$stage/ours/llm-server" target/release/llm-server
cp target/release/lib/*.so.0 "$stage/ours/lib/"
mkdir "$stage/ours/backends"
cp target/release/backends/libggml-cpu-*.so "$stage/ours/backends/"
cp -r "$(dirname "$manifest")/llama.cpp/ggml" "$stage/ggml"
tar -c -C "$PEER" --exclude=./models --exclude=./docs --exclude=./gguf-py --exclude=./ci --exclude=./tests \
    --exclude=./media --exclude=./tools/ui/src --exclude=./tools/ui/static --exclude='*.png' . | tar -x -C "$stage/llama.cpp"
tar -czf "$OUT/bundle.tar.gz" -C "$stage" .
ls -l "$OUT/bundle.tar.gz"
