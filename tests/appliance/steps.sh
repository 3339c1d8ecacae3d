# What the appliance promises, a function each; all_steps at the end names them. Sourced by run.sh.
# shellcheck shell=bash
# Set by run.sh and machine.sh:
# shellcheck disable=SC2154

# The same bytes as the default model, from a hub, so that the download is tried on the way.
model=smollm2-135m-instruct-q4_1
unit=llm-server.service
address=127.0.0.1:8080
state=/var/lib/private/llm-server

# --- words ---

property() { inside systemctl show --value -p "$1" "${2:-$unit}"; }
is() { [ "$(property "$1" "${3:-$unit}")" = "$2" ]; }
active() { is ActiveState active "${1:-$unit}"; }
ask() { near curl --silent --show-error --noproxy '*' --max-time 100 "http://$address$1" "${@:2}"; }
chat() { ask /v1/chat/completions -H 'content-type: application/json' -d '{"messages":[{"role":"user","content":"Hello"}],"max_tokens":8}' "$@"; }
answers() { chat --fail "$@" | grep -q '"finish_reason"'; }
status_of() { "$@" --output /dev/null --write-out '%{http_code}'; }

# `! command` would not end a step that runs under `set -e`.
fails() {
    if "$@"; then
        echo "succeeded, and should not have: $*"
        return 1
    fi
}

# drop_in NAME TEXT: a change to the unit for one step. `as_shipped` takes them all back.
drop_in() {
    mkdir -p "/proc/$leader/root/etc/systemd/system/$unit.d"
    printf '%s\n' "$2" >"/proc/$leader/root/etc/systemd/system/$unit.d/$1.conf"
    inside systemctl daemon-reload
}
as_shipped() {
    rm -rf "/proc/$leader/root/etc/systemd/system/$unit.d" "/proc/$leader/root/run/systemd/system.control/$unit.d"
    configure ''
    inside systemctl daemon-reload
    # Both, and the socket first: systemd opens none whose service runs.
    inside systemctl stop llm-server.socket "$unit"
    inside systemctl reset-failed llm-server.socket "$unit" 2>/dev/null || true
    inside systemctl start llm-server.socket
    inside systemctl start "$unit"
}

# shipped NAME: a file of contrib/systemd that is laid beside the unit by hand.
shipped() { cat "/proc/$leader/root/root/$1.conf"; }

# What the journal says of a unit since `mark`.
mark() { inside journalctl --sync; cursor=$(inside journalctl -n 0 --show-cursor --quiet | sed -n 's/^-- cursor: //p'); }
journal() { inside journalctl --sync; inside journalctl --no-pager --quiet -o cat --after-cursor="$cursor" -u "${1:-$unit}"; }
says() { journal "${2:-$unit}" | grep -F "$1"; }

# A stream in the background that takes some seconds; `stream_is_whole` waits for it.
begin_stream() {
    ask /v1/completions --no-buffer -H 'content-type: application/json' \
        -d '{"prompt":"Once upon a time","max_tokens":400,"ignore_eos":true,"stream":true}' >"$work/stream" &
    stream=$!
    await 30 test -s "$work/stream"
}
stream_is_whole() {
    wait "$stream"
    grep -q 'data: \[DONE\]' "$work/stream" && ! grep -q '"error"' "$work/stream"
}

# --- steps ---

units_are_right() {
    inside systemd-analyze verify --man=no --recursive-errors=one \
        /usr/lib/systemd/system/llm-server{.service,.socket,-rpc.service,@x.service,@x.socket,-models@x.service} 2>&1 |
        { grep -v "Unknown key '\(RestartSteps\|RestartMaxDelaySec\|RestartMode\)'" || true; } | tee "$work/verify"
    [ ! -s "$work/verify" ]
}

# Of 10; the issue's limits are 1.5, and 2.5 with a GPU.
exposure_is_low() {
    local score
    inside systemd-analyze security --no-pager --threshold=15 "$unit" | tail -n 1
    score=$(inside systemd-analyze security --no-pager "$unit" | sed -n 's/.*: \([0-9.]*\) .*/\1/p' | tail -n 1)
    cp "/proc/$leader/root/root/gpu.conf" "$work/gpu.conf"
    drop_in gpu "$(cat "$work/gpu.conf")"
    inside systemd-analyze security --no-pager --threshold=25 "$unit" | tail -n 1
    echo "note: $score, with a GPU $(inside systemd-analyze security --no-pager "$unit" | sed -n 's/.*: \([0-9.]*\) .*/\1/p' | tail -n 1)"
    rm "/proc/$leader/root/etc/systemd/system/$unit.d/gpu.conf"
    inside systemctl daemon-reload
    inside systemd-analyze security --no-pager --threshold=15 llm-server-models@x.service | tail -n 1
}

# A state folder on a disk of its own: first too full from the beginning, then full in the middle.
fetch_survives_a_full_disk() {
    local download=llm-server-models@$model.service
    inside sh -c "mkdir -p $state && mount -t tmpfs -o size=112m,mode=0700 tmpfs $state"
    printf 'HF_ENDPOINT=http://127.0.0.1:8999\n' >"/proc/$leader/root/etc/llm-server/fetch.env"

    mark
    inside dd if=/dev/zero of=$state/filler bs=1M count=60 status=none
    # It goes on trying, so nobody waits for it here.
    inside systemctl start --no-block "$download"
    await 30 says "needs 98362432 bytes more, but /var/lib/llm-server/models has" "$download"
    inside systemctl stop "$download"
    inside rm $state/filler

    mark
    inside systemctl start --no-block "$download"
    await 30 large_enough $((35 << 20))
    fails inside dd if=/dev/zero of=$state/filler bs=64K status=none
    touch "$work/go-on"
    await 30 says 'No space left on device' "$download"
    await 30 is NRestarts 1 "$download"
    # Nobody does anything but make room.
    inside rm $state/filler
    await 90 active "$download"
    says "$model: fetched" "$download"
    inside sh -c "sha256sum $state/models/*.gguf" | grep -q "^b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
}
large_enough() { [ "$(inside sh -c "cat $state/models/*.part | wc -c")" -gt "$1" ]; }

# Watches from before the start until the unit is active: whenever systemd says so, the model answers.
ready_means_answers() {
    local state_now health loading=0
    inside systemctl start llm-server.socket
    inside systemctl start --no-block "$unit"
    while :; do
        state_now=$(property ActiveState)
        health=$(ask /health -o /dev/null -w '%{http_code}')
        [ "$state_now" = activating ] && [ "$health" = 503 ] && loading=$((loading + 1))
        [ "$state_now" = active ] && break
        [ "$state_now" = activating ] || { echo "is $state_now"; return 1; }
    done
    [ "$health" = 200 ] || { echo "active, but health says $health"; return 1; }
    answers
    [ "$loading" -gt 0 ] || { echo "it was never seen loading"; return 1; }
    property StatusText | grep "Serving $model on http://$address"
}

socket_starts_it() {
    inside systemctl stop "$unit"
    active llm-server.socket
    fails active
    answers
    active
}

socket_starts_it_when_bound_to_cpus() {
    configure "engine.cpu_mask = \"0-$(($(nproc) - 1))\", engine.numa = 'distribute,"
    inside systemctl stop "$unit"
    answers
    configure ''
}

restart_loses_nobody() {
    local before
    before=$(property MainPID)
    near python3 "$here/clients.py" "$address" 16 nsenter -t "$leader" -m -p -n -i -u -C -- /usr/bin/systemctl restart "$unit" |
        sed 's/^\([0-9]\)/note: \1/'
    [ "$(property MainPID)" != "$before" ]
}

stop_drains() {
    begin_stream
    inside systemctl stop "$unit"
    stream_is_whole
    is Result success
    inside systemctl start "$unit"
}

reload_keeps_streams() {
    local before
    before=$(property MainPID)
    [ "$(status_of ask /v1/models/another)" = 404 ]
    begin_stream
    configure 'model.aliases = ["another"],'
    inside systemctl reload "$unit"
    await 10 is_known another
    stream_is_whole
    [ "$(property MainPID)" = "$before" ]
    active
    configure ''
}
is_known() { [ "$(status_of ask "/v1/models/$1")" = 200 ]; }

watchdog_ends_a_hang() {
    drop_in watchdog $'[Service]\nWatchdogSec=4s'
    inside systemctl restart "$unit"
    mark
    inside sh -c "kill -STOP $(property MainPID)"
    # Connects while it hangs; the next process answers.
    answers
    journal | grep -i 'watchdog timeout'
    is NRestarts 1
    as_shipped
}

kill_is_survived() {
    near python3 "$here/clients.py" --killed "$address" 16 nsenter -t "$leader" -m -p -n -i -u -C -- /bin/systemctl kill -s KILL "$unit" |
        sed 's/^\([0-9]\)/note: \1/'
    await 60 active
    is NRestarts 1
    as_shipped
}

wrong_keys_are_refused() {
    local keys=/proc/$leader/root/etc/llm-server/api-keys
    drop_in api-keys "$(cat "/proc/$leader/root/root/api-keys.conf")"

    mark
    rm -f "$keys"
    fails inside systemctl restart "$unit"
    # Said by the process that systemd was about to make the server, so it may come late.
    await 10 says 'Failed to set up credentials'

    mark
    (umask 077; printf '# nobody yet\n' >"$keys")
    inside systemctl stop llm-server.socket "$unit"
    inside systemctl reset-failed "$unit"
    fails inside systemctl start "$unit"
    says 'holds no key; expected one key a line'
    is ExecMainStatus 2
    # What will not get better is not tried again.
    is NRestarts 0

    (umask 077; printf 'sk-appliance\n' >"$keys")
    inside systemctl start "$unit"
    [ "$(status_of chat)" = 401 ]
    [ "$(status_of chat -H 'authorization: Bearer sk-wrong')" = 401 ]
    answers -H 'authorization: Bearer sk-appliance'

    (umask 077; printf 'sk-next\n' >"$keys")
    if [ "$(property RefreshOnReload)" = credentials ]; then
        inside systemctl reload "$unit"
        echo 'note: new keys by a reload'
    else
        inside systemctl restart "$unit"
        echo 'note: new keys by a restart, for this systemd hands over credentials once'
    fi
    await 10 answers -H 'authorization: Bearer sk-next'
    as_shipped
}

wrong_configuration_is_refused() {
    mark
    configure 'engine.contxt = 4096,'
    fails inside systemctl restart "$unit"
    # shellcheck disable=SC2016 # backquotes of the message
    says 'did you mean `context`?'
    is ExecMainStatus 2
    as_shipped
}

little_memory_is_refused() {
    local limit=$((64 << 20))
    drop_in memory "[Service]
MemoryMax=$limit"
    if ! inside grep -qw memory /sys/fs/cgroup/cgroup.controllers; then
        # This machine gives its memory controller to the first version of cgroups: the limit is shown, not enforced.
        local fake=/run/cgroup/system.slice/$unit
        inside mkdir -p "$fake"
        inside sh -c "echo $limit >$fake/memory.max; echo 4194304 >$fake/memory.current"
        drop_in shown $'[Service]\nMemoryPressureWatch=off\nBindReadOnlyPaths=/run/cgroup:/sys/fs/cgroup'
        echo "note: the kernel has no memory controller in cgroup 2 here, so the limit was shown to the server by a bind mount"
    fi
    mark
    fails inside systemctl restart "$unit"
    journal
    is ExecMainStatus 78
    is NRestarts 0
    says 'the model does not fit: host lacks'
    as_shipped
}

# What the plan says becomes the unit's limits, also when the plan changes.
limits_follow_the_plan() {
    local first
    drop_in memory "$(shipped memory)"
    configure 'cache.ram = 64,'
    mark
    inside systemctl restart "$unit" || { journal; return 1; }
    limits_are_planned
    first=$(property MemoryMax)
    answers
    # Twice the cache of the sequences: the first limit may not stand in its way.
    configure "cache.ram = 64, engine.kv = { k = 'f32, v = 'f32 },"
    inside systemctl restart "$unit"
    limits_are_planned
    [ "$(property MemoryMax)" -gt "$first" ]
    answers
    echo "note: MemoryMax $((first >> 20)) MiB, then $(($(property MemoryMax) >> 20))"

    # Without a bound no limit, and the server runs all the same.
    configure ''
    mark
    inside systemctl restart "$unit"
    says 'cache.ram: a limit needs a number of MiB'
    is MemoryMax infinity
    answers
    as_shipped
}
limits_are_planned() {
    local told
    told=$(inside cat /run/llm-server/memory)
    [ "$told" = "MemoryMax=$(property MemoryMax)"$'\n'"MemoryLow=$(property MemoryLow)" ] ||
        { echo "systemd has MemoryMax=$(property MemoryMax) MemoryLow=$(property MemoryLow), planned was: $told"; return 1; }
}

# Two workers as services, on this machine for want of others. The second is the first under another name.
workers_share_a_model() {
    local root=/proc/$leader/root before
    cp "$root/usr/lib/systemd/system/llm-server-rpc.service" "$root/run/systemd/system/llm-server-rpc2.service"
    sed -i 's/LISTEN=127.0.0.1:50052/LISTEN=127.0.0.1:50053/; s/^CacheDirectory=.*/&2/' "$root/run/systemd/system/llm-server-rpc2.service"
    drop_in rpc "$(shipped rpc | sed 's/^IPAddressAllow=.*/IPAddressAllow=localhost/')"
    configure 'engine.rpc = ["127.0.0.1:50052", "127.0.0.1:50053"],'

    # Nobody lends yet: tried again, not given up.
    mark
    inside systemctl stop "$unit"
    inside systemctl start --no-block "$unit"
    await 30 says 'engine.rpc: the worker 127.0.0.1:50052 cannot be reached' || { journal; return 1; }
    is ExecMainStatus 69
    inside systemctl start llm-server-rpc.service llm-server-rpc2.service
    await 90 active
    answers
    ask /props | grep -q '"RPC1"'

    before=$(property MainPID)
    inside systemctl kill -s KILL llm-server-rpc2.service
    # The loss is noticed by whoever needs the worker next.
    chat >/dev/null || true
    await 90 is_another_process "$before"
    await 90 active
    answers
    await 5 active llm-server-rpc2.service
    inside systemd-analyze security --no-pager --threshold=15 llm-server-rpc.service | tail -n 1
    inside systemctl stop llm-server-rpc.service llm-server-rpc2.service
    as_shipped
}
is_another_process() { [ "$(property MainPID)" != "$1" ] && ! is MainPID 0; }

journal_knows_the_request() {
    local field id=appliance-$RANDOM
    answers -H "x-request-id: $id"
    inside journalctl --sync
    field=$(inside journalctl -N | grep -xE 'REQUEST_ID|ID' | sort | tail -n 1)
    inside journalctl --no-pager -o json "$field=$id" | tee "$work/entry"
    [ "$(wc -l <"$work/entry")" -eq 1 ]
    grep -q '"OUTCOME":' "$work/entry"
    grep -q '"MODEL":"'"$model" "$work/entry"
    echo "note: $field=$id"
}

start_hub() {
    near python3 "$here/hub.py" 8999 "$weights" $((40 << 20)) "$work/go-on" 2>/dev/null &
    # shellcheck disable=SC2034 # `halt` ends it
    hub=$!
}

all_steps() {
    start_hub
    step 'the units have no line that systemd does not know' units_are_right
    step 'a full disk ends a download clearly, and room lets it go on' fetch_survives_a_full_disk
    step 'systemd hears READY only when the model answers' ready_means_answers
    step 'a chat over the socket starts the service' socket_starts_it
    step 'threads may be bound to CPUs inside the sandbox' socket_starts_it_when_bound_to_cpus
    step 'a restart under 16 clients refuses none and cuts no stream' restart_loses_nobody
    step 'a stop lets a running stream finish' stop_drains
    step 'a reload keeps the process and its streams' reload_keeps_streams
    step 'a process that hangs is replaced by the watchdog' watchdog_ends_a_hang
    step 'a process that is killed is replaced, and its clients come back' kill_is_survived
    step 'a wrong key file is refused by name, and a right one asks for keys' wrong_keys_are_refused
    step 'a wrong configuration is refused with the place, once' wrong_configuration_is_refused
    step 'too little memory is refused with what would fit' little_memory_is_refused
    step 'limits of memory are those of the plan' limits_follow_the_plan
    step 'two workers lend their devices, and one that is lost is found again' workers_share_a_model
    step 'the journal finds a request by its id' journal_knows_the_request
    step 'the exposure is low, without and with a GPU' exposure_is_low
}
