# The machine of the test: a container booted with systemd, thrown away afterwards. Sourced by run.sh.
# shellcheck shell=bash
# Set by run.sh and steps.sh, as is `cannot`:
# shellcheck disable=SC2154

# await SECONDS COMMAND...: until it succeeds.
await() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$until" ]; then
            echo "waited in vain for: $*" >&2
            return 1
        fi
        sleep 0.1
    done
}

# A command in the container; in its network only, with this machine's programs and files.
inside() { timeout 150 nsenter -t "$leader" -m -p -n -i -u -C -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"; }
near() { env -u http_proxy -u HTTP_PROXY -u ALL_PROXY nsenter -t "$leader" -n -- "$@"; }

# boot ROOT: what is written goes into a layer over ROOT. Sets `supervisor` and `leader`, its PID 1 as seen from here.
boot() {
    mkdir -p "$work/upper/etc/systemd/journald.conf.d" "$work/layer" "$work/root"
    # Read while it is written: not through a layer.
    printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n' >"$work/upper/etc/systemd/journald.conf.d/volatile.conf"
    # In a mount namespace of its own: the layer, and cgroup 2 where this machine still uses the first version.
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --mount --propagation private bash -euc '
        mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/layer" "$2/root"
        if [ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ]; then
            umount -R /sys/fs/cgroup
            mount -t cgroup2 cgroup2 /sys/fs/cgroup
        fi
        mkdir "/sys/fs/cgroup/$3"
        echo $$ >"/sys/fs/cgroup/$3/cgroup.procs"
        exec systemd-nspawn --quiet -D "$2/root" --register=no --keep-unit --boot --private-network --hostname=appliance \
            --link-journal=no
    ' boot "$1" "$work" "appliance.$$" </dev/null >"$work/console" 2>&1 &
    supervisor=$!
    await 30 has_leader || { tail -n 20 "$work/console" >&2; cannot "no container can be started"; }
    await 120 is_up || { tail -n 20 "$work/console" >&2; cannot "systemd does not boot in a container"; }
}

has_leader() {
    leader=$(cat "/proc/$supervisor/task/$supervisor/children")
    leader=${leader%% *}
    [ -n "$leader" ] && [ "$(cat "/proc/$leader/comm")" = systemd ]
}
# "degraded" is up as well: some unit of Debian's that no container can run.
is_up() { inside systemctl is-system-running | grep -qE 'running|degraded'; }

halt() {
    if [ -n "${leader:-}" ] && kill -0 "$leader" 2>/dev/null; then
        # Systemd's signal for an orderly halt, and no patience.
        kill -RTMIN+3 "$leader"
        await 20 gone "$leader" || kill -KILL "$leader"
    fi
    [ -z "${supervisor:-}" ] || wait "$supervisor" 2>/dev/null || true
    [ -z "${hub:-}" ] || kill "$hub" 2>/dev/null || true
    rmdir "/sys/fs/cgroup/appliance.$$" 2>/dev/null || true
}
gone() { ! kill -0 "$1" 2>/dev/null; }

# Where a package would put it, with the units for distributions without Nix.
install_server() {
    local root=/proc/$leader/root
    mkdir -p "$root/usr/lib/llm-server" "$root/etc/llm-server"
    cp -rL "$build"/{llm-server,lib,backends} "$root/usr/lib/llm-server/"
    ln -sf ../lib/llm-server/llm-server "$root/usr/bin/llm-server"
    cp contrib/systemd/*.{service,socket} "$root/usr/lib/systemd/system/"
    cp contrib/systemd/*.conf "$root/root/"
    configure ''
    inside systemctl daemon-reload
}

# configure TEXT: the configuration, with these settings as well.
configure() {
    cat >"/proc/$leader/root/etc/llm-server/config.ncl" <<EOF
{
  model.name = "$model",
  engine = { context = 1024, parallel = 4 },
  limits.drain = 120,
  $1
}
EOF
}
