#!/usr/bin/env bash
# The appliance under a real systemd: boots a small Debian by systemd-nspawn, installs the release build and the units
# of contrib/systemd, and shows what docs/systemd.md promises. Needs root; `make appliance-test` calls it.
#
#   APPLIANCE_SUITE    release of Debian whose systemd is tried [trixie]
#   APPLIANCE_BUILD    folder with llm-server, lib and backends [target/release]
#   APPLIANCE_FOLDER   where the root is kept between runs [target/appliance]
#   LLM_SERVER_MODELS  store that has the small model, or where to fetch it [target/test-models]
#   ONLY               run only the steps whose names match this
#
# Exit status 77: it cannot be tried on this machine, and the last line says why.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/tests/appliance

suite=${APPLIANCE_SUITE:-trixie}
build=$(realpath "${APPLIANCE_BUILD:-target/release}")
folder=${APPLIANCE_FOLDER:-$PWD/target/appliance}
export LLM_SERVER_MODELS=${LLM_SERVER_MODELS:-$PWD/target/test-models}

cannot() { echo "the appliance cannot be tried here: $*" >&2; exit 77; }
[ "$(id -u)" -eq 0 ] || cannot "booting a container needs root"
[ -x "$build/llm-server" ] || cannot "there is no $build/llm-server; run \`make build\` first"
mkdir -p "$folder"
"$here/root.sh" "$folder/$suite" "$suite" || cannot "no root of Debian $suite"
"$build/llm-server" models fetch smollm2-135m-instruct >/dev/null || cannot "no small model"
weights=$("$build/llm-server" models path smollm2-135m-instruct)

work=$(mktemp -d "$folder/run.XXXXXX")
# shellcheck source=tests/appliance/machine.sh
. "$here/machine.sh"
# shellcheck source=tests/appliance/steps.sh
. "$here/steps.sh"

trap 'halt; rm -rf "$work"' EXIT
boot "$folder/$suite"
install_server
printf 'systemd %s, Debian %s, %s\n' "$(inside systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')" "$suite" \
    "$("$build/llm-server" --version)"

failed=0
ran=0
step() {
    local name=$1 status=0
    shift
    [[ $name =~ ${ONLY:-.} ]] || return 0
    ran=$((ran + 1))
    # A subshell outside of any condition, or `set -e` would not hold in it.
    set +e
    (set -e; "$@") >"$work/said" 2>&1
    status=$?
    set -e
    if [ "$status" -eq 0 ]; then
        printf 'ok    %s%s\n' "$name" "$(sed -n 's/^note: \(.*\)/ (\1)/p' "$work/said" | tr -d '\n')"
    else
        failed=$((failed + 1))
        printf 'FAIL  %s\n' "$name"
        tail -n 30 "$work/said" | sed 's/^/      /'
        # What a step left behind shall not fail the next.
        as_shipped >/dev/null 2>&1 || true
    fi
}

all_steps
echo "$((ran - failed)) of $ran steps passed"
[ "$ran" -gt 0 ] && [ "$failed" -eq 0 ]
