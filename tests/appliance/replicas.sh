#!/usr/bin/env bash
# Two servers behind HAProxy and behind nginx, as docs/scaling.md describes them: shared prompts go to one server, and
# one of them can be restarted under load. Needs root (for a network of its own) and the proxies that it is to try.
#
#   APPLIANCE_BUILD    folder with llm-server, lib and backends [target/release]
#   LLM_SERVER_MODELS  store that has the small model [target/test-models]
# Functions are called by `says`, and an inner shell expands what it is given:
# shellcheck disable=SC2317,SC2016
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ "${1:-}" != in-its-network ]; then
    [ "$(id -u)" -eq 0 ] || { echo "the replicas cannot be tried here: a network of their own needs root" >&2; exit 1; }
    # The ports of contrib/ are fixed, so nobody else may be there.
    exec unshare --net --pid --mount-proc --fork --kill-child "$0" in-its-network
fi
ip link set lo up
unset http_proxy HTTP_PROXY all_proxy ALL_PROXY

build=$(realpath "${APPLIANCE_BUILD:-target/release}")
export LLM_SERVER_MODELS=${LLM_SERVER_MODELS:-$PWD/target/test-models}
work=$(mktemp -d)
trap 'rm -rf "$work"; kill 0' EXIT

# A server that comes back when it ends, as under systemd, on a socket of its own.
keep() {
    while :; do
        "$build/llm-server" serve --set "listen = \"127.0.0.1:$1\"" --set 'engine = {context = 512, parallel = 4, threads = 1}' \
            >>"$work/$1.log" 2>&1 &
        echo $! >"$work/$1.pid"
        wait $! || true
    done
}
up() { curl --silent --fail --output /dev/null "http://127.0.0.1:$1/health/ready"; }
await_up() {
    local until=$((SECONDS + 120))
    until up "$1"; do
        [ "$SECONDS" -lt "$until" ] || { cat "$work/$1.log" >&2; return 1; }
        sleep 0.1
    done
}
ask() {
    curl --silent --fail --max-time 100 --dump-header - --output /dev/null "$@" http://127.0.0.1:8000/v1/chat/completions \
        -H 'content-type: application/json' -d '{"messages":[{"role":"user","content":"Hello"}],"max_tokens":2}' |
        tr -d '\r' | sed -n 's/^x-served-by: //p'
}
failed=0
says() {
    local name=$1
    shift
    if "$@"; then echo "ok    $name"; else echo "FAIL  $name"; failed=1; fi
}
servers_of() { for value in "$@"; do ask -H "x-affinity: $value"; done | sort -u | wc -l; }
is() { [ "$1" = "$2" ] || { echo "      $1 instead of $2"; return 1; }; }
one_is_enough() { is "$(for _ in 1 2 3 4; do ask; done | sort -u | wc -l)" 1; }
restarted_under_load() {
    python3 tests/appliance/clients.py 127.0.0.1:8000 8 bash -c '
        before=$(cat "$0/8082.pid"); kill -TERM "$before"
        while kill -0 "$before" 2>/dev/null; do sleep 0.1; done
        until curl --silent --fail --output /dev/null http://127.0.0.1:8082/health/ready; do sleep 0.1; done' "$work" |
        sed 's/^/      /'
}

tried=0
keep 8081 &
await_up 8081
for proxy in haproxy nginx; do
    command -v "$proxy" >/dev/null || { echo "      $proxy is not installed and was not tried"; continue; }
    tried=1
    case $proxy in
        haproxy) haproxy -db -f contrib/haproxy.cfg >"$work/proxy.log" 2>&1 & ;;
        nginx) nginx -e "$work/proxy.log" -p "$work" -g "daemon off; pid $work/nginx.pid;" -c "$PWD/contrib/nginx.conf" & ;;
    esac
    front=$!
    await_up 8000
    [ "$proxy" = nginx ] || says "$proxy: one server is enough" one_is_enough
    [ -e "$work/8082.pid" ] || keep 8082 &
    await_up 8082
    sleep 2 # the proxy's checks come every second
    says "$proxy: one affinity, one server" is "$(servers_of a a a a a a)" 1
    says "$proxy: many affinities, both servers" is "$(servers_of a b c d e f g h i j k l)" 2
    says "$proxy: a server restarted under 8 clients refuses none and cuts no stream" restarted_under_load
    kill "$front"
    wait "$front" 2>/dev/null || true
done
[ "$tried" -eq 1 ] || { echo "neither HAProxy nor nginx is installed: nothing was tried" >&2; exit 1; }
exit "$failed"
