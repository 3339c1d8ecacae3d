#!/usr/bin/env bash
# A thousand requests of mixed size from 64 clients against eight sequences; a fifth of the clients
# hangs up midway. Shown at the end: no error but 429, every sequence free, memory flat, same process.
set -euo pipefail
cd "$(dirname "$0")/.."

REQUESTS=${REQUESTS:-1000}
CLIENTS=${CLIENTS:-64}
PARALLEL=${PARALLEL:-8}
HANGUP=${HANGUP:-0.2}
# Resident memory may grow by this much between the warm phase and the end.
GROWTH_MIB=${GROWTH_MIB:-24}
SERVER=${SERVER:-target/release/llm-server}
OUT=target/churn

mkdir -p "$OUT"
[ -x "$SERVER" ] || { echo "$SERVER is missing: make build" >&2; exit 1; }
read -r PORT < <(python3 benches/process.py ports 1)
url=http://127.0.0.1:$PORT

# On a slow machine the last of the clients waits long: that is its speed, not a fault.
"$SERVER" serve --fetch --set "listen = \"127.0.0.1:$PORT\"" \
    --set "engine = {context = 1024, parallel = $PARALLEL}" --set 'limits.queue_wait = 300' >"$OUT/server.log" 2>&1 &
pid=$!
trap 'kill -9 "$pid" 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
python3 benches/process.py ready "$pid" "$url/health"

load() {
    "$SERVER" bench "$url" --label server --mixed --runs 1 --prompt-tokens 8,32,96,256 --max-tokens 64 \
        --timeout 300 "$@"
}
fail() {
    echo "FAILED: $*; the server's log is $OUT/server.log" >&2
    exit 1
}

begun=$SECONDS
echo "warm phase: $((REQUESTS / 4)) requests"
load --requests $((REQUESTS / 4)) --concurrency "$CLIENTS" --hangup "$HANGUP" >"$OUT/warm.txt" ||
    { cat "$OUT/warm.txt"; fail "a request of the warm phase broke"; }
before=$(python3 benches/process.py rss "$pid")

# 1 when a request ended in another way than answered, hung up or 429.
load --requests "$REQUESTS" --concurrency "$CLIENTS" --hangup "$HANGUP" --json "$OUT/report.json" ||
    fail "a request broke"
after=$(python3 benches/process.py rss "$pid")

# A sequence that leaked would leave one of these waiting until the others are done.
"$SERVER" bench "$url" --label "all sequences at once" --runs 1 --prompt-tokens 8 --max-tokens 96 \
    --concurrency "$PARALLEL" --json "$OUT/after.json" >/dev/null || fail "the server does not answer any more"
kill -0 "$pid" || fail "the process is gone"

kill -TERM "$pid"
status=0
wait "$pid" || status=$?
[ "$status" -eq 0 ] || fail "SIGTERM: exit status $status"
draining=$(sed 's/\x1b\[[0-9;]*m//g' "$OUT/server.log" | grep -m 1 draining) || fail "no line about draining"
case $draining in
    *running=0*queued=0*) ;;
    *) fail "sequences were not free: $draining" ;;
esac

growth=$(((after - before) / 1024))
echo "process $pid throughout; resident memory $((before / 1024)) → $((after / 1024)) MiB; all sequences free; drained; $((SECONDS - begun)) s"
[ "$growth" -le "$GROWTH_MIB" ] || fail "memory grew by $growth MiB"
