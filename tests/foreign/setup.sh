#!/usr/bin/env bash
# Installs what the suites are made of, each once and by its version, below FOREIGN_CACHE (~/.cache/sluicegate-foreign):
# a Python environment, the node modules, and grpc-go's interoperability programs. Does nothing, and needs no network,
# where all of it is present. With the argument `environment` it prints the variables that the suites are run with.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${FOREIGN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sluicegate-foreign}

# Some of Debian's servers are in /usr/sbin, which not everybody's PATH has.
PATH=$PATH:/usr/sbin:/sbin

say() { printf 'foreign: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
digest() { cat "$@" | sha256sum | cut -c 1-12; }

grpc_go=$(sed -n 's/.*google\.golang\.org\/grpc v\([0-9.]*\).*/\1/p' "$here/interop/go.mod" | head -n 1)
go_needed=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' "$here/interop/go.mod")
python=$cache/python-$(digest "$here/requirements.txt")
node=$cache/node-$(digest "$here/package-lock.json")
interop=$cache/interop-$grpc_go-$(digest "$here/interop/go.sum")

if [ "${1:-}" = environment ]; then
    printf 'export PATH=%q:"$PATH":/usr/sbin:/sbin NODE_PATH=%q FOREIGN_INTEROP=%q\n' "$python/bin" "$node/node_modules" "$interop"
    exit 0
fi

# Installs Debian's packages for programs that are not there.
need() {
    local program=$1 missing=""
    shift
    command -v "$program" >/dev/null 2>&1 && return
    missing="$*"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing $missing"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    else
        die "needed is $program; as root: apt-get install --no-install-recommends $missing"
    fi
}

# Makes the folder $1 by running the rest, which is given a folder to fill; whole or not at all.
once() {
    local folder=$1
    shift
    [ -e "$folder/.done" ] && return
    say "making $folder"
    rm -rf "$folder"
    mkdir -p "$folder"
    "$@" "$folder"
    touch "$folder/.done"
}

make_python() {
    python3 -m venv "$1" || die "Python's venv module is needed; as root: apt-get install python3-venv"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --requirement "$here/requirements.txt"
}

make_node() {
    cp "$here/package.json" "$here/package-lock.json" "$1"
    (cd "$1" && npm ci --silent --ignore-scripts --no-audit --no-fund)
}

make_interop() {
    local go_there
    go_there=$(GOTOOLCHAIN=local go env GOVERSION | sed 's/^go//')
    if [ "$(printf '%s\n' "$go_needed" "$go_there" | sort -V | head -n 1)" != "$go_needed" ]; then
        die "grpc-go $grpc_go needs Go $go_needed, and this is $go_there (Debian's golang-go is older than that): install a" \
            "newer Go, for instance by unpacking the archive that the Go project offers and putting its bin/ first in PATH"
    fi
    (cd "$here/interop" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly go build -trimpath -buildvcs=false -ldflags='-s -w' -o "$1/" \
        google.golang.org/grpc/interop/client google.golang.org/grpc/interop/server)
}

need curl curl ca-certificates
need python3 python3 python3-venv
need node nodejs npm
need npm npm
need wrk wrk
need haproxy haproxy
need nghttpd nghttp2-server
need ip iproute2
[ -e "$interop/.done" ] || need go golang-go
once "$python" make_python
once "$node" make_node
once "$interop" make_interop
