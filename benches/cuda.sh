#!/usr/bin/env bash
# Builds libggml-cuda.so from the ggml tree of the pinned engine crate and lays it beside the CPU backends, where the
# server finds it at its next start. Needs nvcc and CMake, no GPU.
#
#   benches/cuda.sh                                  for the GPUs named below
#   CUDA_ARCHITECTURES=120a-real benches/cuda.sh     for an RTX 50 alone
#   GGML=PATH OUT=PATH benches/cuda.sh               from another tree, to another folder
#
# sm_90 is Hopper (H100, H200), sm_120 Blackwell for consumers (RTX 50). FA_QUANTS adds flash attention for mixed
# formats of keys and values, such as "q8_0-q4_0"; without it both have the same one of f16, bf16, q8_0 and q4_0.
set -euo pipefail
cd "$(dirname "$0")/.."

CUDA_ARCHITECTURES=${CUDA_ARCHITECTURES:-90a-real;120a-real}
OUT=${OUT:-target/release/backends}
BUILD=${BUILD:-target/cuda}
JOBS=${JOBS:-$(nproc)}

if [ -z "${GGML:-}" ]; then
    manifest=$(cargo metadata --format-version 1 --locked | python3 -c '
import json, sys
print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "llama-cpp-sys-2"))')
    GGML=$(dirname "$manifest")/llama.cpp/ggml
fi
NVCC=${CUDACXX:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
[ -x "$NVCC" ] || { echo "nvcc is missing: install the CUDA toolkit, or set CUDACXX" >&2; exit 1; }

# The crate leaves out one file that CMake wants, and its folder is not ours to write to.
mkdir -p "$BUILD" "$OUT"
rm -rf "$BUILD/ggml"
cp -r "$GGML" "$BUILD/ggml"
touch "$BUILD/ggml/ggml.pc.in"
generator=()
if command -v ninja >/dev/null; then generator=(-G Ninja); fi
cmake -S "$BUILD/ggml" -B "$BUILD/build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON \
    -DGGML_BACKEND_DL=ON -DGGML_CPU=OFF -DGGML_BUILD_TESTS=OFF -DGGML_BUILD_EXAMPLES=OFF -DGGML_CUDA=ON \
    -DCMAKE_CUDA_COMPILER="$NVCC" -DCMAKE_CUDA_ARCHITECTURES="$CUDA_ARCHITECTURES" \
    ${FA_QUANTS:+-DGGML_CUDA_FA_QUANTS="$FA_QUANTS"} >"$BUILD/configure.log" 2>&1 || { cat "$BUILD/configure.log"; exit 1; }
cmake --build "$BUILD/build" -j "$JOBS" --target ggml-cuda >"$BUILD/build.log" 2>&1 || { tail -30 "$BUILD/build.log"; exit 1; }
plugin=$(find "$BUILD/build" -name libggml-cuda.so | head -n 1)
strip --strip-unneeded -o "$OUT/libggml-cuda.so" "$plugin"
# What `llm-server version` says of the plugin.
version=$("$NVCC" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
architectures=$(printf '"%s"' "$CUDA_ARCHITECTURES" | sed 's/;/", "/g')
printf '{"version": "%s", "architectures": [%s]}\n' "$version" "$architectures" >"$OUT/cuda.json"
ls -l "$OUT/libggml-cuda.so"
