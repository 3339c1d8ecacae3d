#!/usr/bin/env bash
# Placement on a GPU, this server against llama-server of the same version, on a machine with nvcc, CMake and Python
# with NumPy, and nothing else: unpacks target/gpu/bundle.tar.gz (benches/gpu-bundle.sh), builds the CUDA plugin and
# llama-server, writes synthetic models of exact shape, and measures both in turns. One table, and JSON in $RESULTS.
#
#   benches/gpu.sh                      the table of docs/placement.md
#   MODELS=qwen3-32b benches/gpu.sh     another model: qwen3.5-35b-a3b, qwen3-30b-a3b, qwen3-32b
#
# FREE: MiB that each GPU has left for the servers (16281, as a card of 16 GB), or `all`. GPUS: how many GPUs there are. Other variables: benches/gpu.py --help.
set -euo pipefail
cd "$(dirname "$0")/.."

HOME_DIR=${HOME_DIR:-/tmp/llm-server-gpu}
MODELS=${MODELS:-qwen3.5-35b-a3b}
FREE=${FREE:-16281}
GPUS=${GPUS:-1}
RESULTS=${RESULTS:-$HOME_DIR/results}
CUDA_ARCHITECTURES=${CUDA_ARCHITECTURES:-native}
mkdir -p "$HOME_DIR" "$RESULTS"
nvidia-smi --query-gpu=name,memory.total,pcie.link.gen.current,pcie.link.width.current,driver_version --format=csv,noheader
grep -m 1 'model name' /proc/cpuinfo

[ -d "$HOME_DIR/ours" ] || tar -xzf target/gpu/bundle.tar.gz -C "$HOME_DIR"
export PATH=$PATH:/usr/local/cuda/bin
{
    for model in $MODELS; do
        [ -f "$HOME_DIR/$model.gguf" ] || python3 benches/gen_moe.py --quiet --preset "$model" -o "$HOME_DIR/$model.gguf"
    done
} >"$HOME_DIR/models.log" 2>&1 &
writing=$!
build_peer() {
    local generator=()
    if command -v ninja >/dev/null; then generator=(-G Ninja); fi
    cmake -S "$HOME_DIR/llama.cpp" -B "$HOME_DIR/peer" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON \
        -DGGML_BACKEND_DL=ON -DGGML_NATIVE=OFF -DGGML_CPU_ALL_VARIANTS=ON -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_TESTS=OFF \
        -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
        -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF
    cmake --build "$HOME_DIR/peer" -j "$(nproc)" --target llama-server
}
if [ ! -x "$HOME_DIR/peer/bin/llama-server" ]; then
    build_peer >"$HOME_DIR/peer.log" 2>&1 &
    peer=$!
    nvcc -o "$HOME_DIR/ballast" benches/ballast.cu
    GGML=$HOME_DIR/ggml BUILD=$HOME_DIR/cuda OUT=$HOME_DIR/ours/backends CUDA_ARCHITECTURES=$CUDA_ARCHITECTURES benches/cuda.sh
    wait "$peer" || { tail -20 "$HOME_DIR/peer.log"; exit 1; }
    # Both run the same backends: the same bytes compute.
    cp "$HOME_DIR"/ours/backends/*.so "$HOME_DIR/peer/bin/"
fi
wait "$writing" || { cat "$HOME_DIR/models.log"; exit 1; }
# Digests of the models are remembered here: only the first start of each reads it through.
export LLM_SERVER_MODELS=$HOME_DIR/store
mkdir -p "$LLM_SERVER_MODELS"
echo "ready to measure after $SECONDS s"

held=()
# Called by the trap.
# shellcheck disable=SC2317
stop() { for pid in "${held[@]}"; do kill "$pid" 2>/dev/null || true; done; }
trap stop EXIT
for gpu in $([ "$FREE" = all ] || seq 0 $((GPUS - 1))); do
    rm -f "$HOME_DIR/ballast.$gpu"
    "$HOME_DIR/ballast" "$FREE" "$gpu" >"$HOME_DIR/ballast.$gpu" &
    held+=($!)
    until [ -s "$HOME_DIR/ballast.$gpu" ]; do kill -0 "${held[-1]}" || exit 1; sleep 0.1; done
    cat "$HOME_DIR/ballast.$gpu"
done
for model in $MODELS; do
    python3 benches/gpu.py --ours "$HOME_DIR/ours/llm-server" --peer "$HOME_DIR/peer/bin/llama-server" \
        --model "$HOME_DIR/$model.gguf" --json "$RESULTS/$model.json" "$@"
done
