#!/usr/bin/env bash
# bash inspect.sh PACKAGE: refuses a package that is not whole, not relocatable, too large or slow.
set -euo pipefail
package=$1
lib=$package/lib/llm-server

fail() {
    echo "inspect: $*" >&2
    exit 1
}

# Run paths of our own files lead to our own files by $ORIGIN only; a package set may add its libraries.
for file in "$package/bin/llm-server" "$lib"/*.so.* "$lib"/backends/libggml-{cpu-*,rpc}.so; do
    paths=$(readelf -d "$file" | sed -n 's/.*R\(UN\)\?PATH.*\[\(.*\)\]/\2/p')
    [[ $paths == *\$ORIGIN* ]] || fail "$file does not look beside itself for libraries: ${paths:-no run path}"
    for path in ${paths//:/ }; do
        [[ $path == \$ORIGIN* || $path == "${NIX_STORE:-/nix/store}"/* ]] || fail "$file looks for libraries in $path"
    done
done

variants=$(find "$lib/backends" -name 'libggml-cpu-*.so' | wc -l)
[ "$variants" -ge 5 ] || fail "$variants CPU variants, expected at least 5"

for page in "" -serve -check -models; do
    compgen -G "$package/share/man/man1/llm-server$page.1*" >/dev/null || fail "no manual page llm-server$page(1)"
done
for script in bash-completion/completions/llm-server zsh/site-functions/_llm-server fish/vendor_completions.d/llm-server.fish; do
    [ -s "$package/share/$script" ] || fail "no completions in share/$script"
done

# Measured 65 MB, not stripped. Much more means that something came in which nobody wanted.
most_mb=100
size_mb=$(du -sm --apparent-size "$package" | cut -f 1)
[ "$size_mb" -le "$most_mb" ] || fail "$size_mb MB, expected at most $most_mb"

# In an empty environment, from a folder that has nothing to do with it. SOURCE_DATE_EPOCH would have
# turned AVX2 off without a word.
version=$(cd / && env -i "$package/bin/llm-server" version)
echo "$version"
[[ $version == *RPC* ]] || fail "the engine has no RPC backend"
[ "$(uname -m)" != x86_64 ] || ! grep -qw avx2 /proc/cpuinfo || [[ $version == *AVX2* ]] || fail "this CPU has AVX2 and the engine does not use it"
echo "inspect: $size_mb MB, $variants CPU variants"
