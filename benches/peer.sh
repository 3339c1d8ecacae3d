#!/usr/bin/env bash
# Speed of this server against llama-server of the same llama.cpp build: same model file, threads,
# context, sequences, KV type and flash attention; the runs interleaved; prompts that no cache has seen.
#
#   benches/peer.sh                        the small model with the defaults below
#   MODEL=qwen3-0.6b-q8_0 THREADS=8 RUNS=9 benches/peer.sh
#
# LLAMA_SERVER=PATH skips the build of llama-server. Tables go to stdout, JSON to target/peer/.
set -euo pipefail
cd "$(dirname "$0")/.."

MODEL=${MODEL:-smollm2-135m-instruct}
THREADS=${THREADS:-$(nproc)}
CONTEXT=${CONTEXT:-4096} # tokens for each sequence
PARALLEL=${PARALLEL:-4}
KV=${KV:-f16}
FLASH=${FLASH:-on}
BATCH=${BATCH:-2048}
UBATCH=${UBATCH:-512}
RUNS=${RUNS:-7}
STARTS=${STARTS:-7}
PROMPTS=${PROMPTS:-512,2048}
TOKENS=${TOKENS:-128}
CONCURRENCY=${CONCURRENCY:-1}
OUT=target/peer
SERVER=${SERVER:-target/release/llm-server}

mkdir -p "$OUT"
[ -x "$SERVER" ] || { echo "$SERVER is missing: make build" >&2; exit 1; }
LLAMA_SERVER=${LLAMA_SERVER:-$(benches/llama-server.sh)}
"$SERVER" models fetch "$MODEL" >&2
FILE=$("$SERVER" models path "$MODEL")

read -r PORT_A PORT_B < <(python3 benches/process.py ports 2)
ours=("$SERVER" serve
    --set "listen = \"127.0.0.1:$PORT_A\""
    --set "model.name = \"$MODEL\""
    --set "engine = {context = $CONTEXT, parallel = $PARALLEL, threads = $THREADS, threads_batch = $THREADS, batch = $BATCH, ubatch = $UBATCH, flash_attention = '$FLASH, kv = {k = '$KV, v = '$KV}}")
# Each of its slots gets an equal part of the context; its own caches of earlier prompts stay off.
theirs=("$LLAMA_SERVER" --host 127.0.0.1 --port "$PORT_B" -m "$FILE"
    -c $((CONTEXT * PARALLEL)) -np "$PARALLEL" -t "$THREADS" -tb "$THREADS" -b "$BATCH" -ub "$UBATCH"
    -fa "$FLASH" -ctk "$KV" -ctv "$KV" --cache-ram 0 --no-cache-prompt --no-webui)

echo "model $MODEL ($(stat -c %s "$FILE") bytes), $THREADS threads, $PARALLEL × $CONTEXT tokens of context, KV $KV, flash attention $FLASH"
grep -m 1 'model name' /proc/cpuinfo | sed 's/.*: /cpu: /' || true

python3 benches/process.py starts "$STARTS" "$OUT/starts.json" \
    "http://127.0.0.1:$PORT_A/health" "${ours[@]}" -- \
    "http://127.0.0.1:$PORT_B/health" "${theirs[@]}"

pids=()
# Called by the trap.
# shellcheck disable=SC2317
stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"${ours[@]}" >"$OUT/ours.log" 2>&1 & pids+=($!)
"${theirs[@]}" >"$OUT/theirs.log" 2>&1 & pids+=($!)
python3 benches/process.py ready "${pids[0]}" "http://127.0.0.1:$PORT_A/health"
python3 benches/process.py ready "${pids[1]}" "http://127.0.0.1:$PORT_B/health"

"$SERVER" bench "http://127.0.0.1:$PORT_A" "http://127.0.0.1:$PORT_B" --label ours --label llama-server \
    --prompt-tokens "$PROMPTS" --max-tokens "$TOKENS" --concurrency "$CONCURRENCY" --runs "$RUNS" \
    --body '{"cache_prompt": false}' --json "$OUT/speed.json"

echo
python3 benches/process.py memory "$OUT/memory.json" ours "${pids[0]}" llama-server "${pids[1]}"
