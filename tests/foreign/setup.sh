#!/usr/bin/env bash
# Installs what the suites are made of, each once and by its version, below FOREIGN_CACHE (~/.cache/sluicegate-foreign):
# a Python environment, the node modules, grpc-go's interoperability programs and the one of `upgrade`; and Debian's packages of
# the servers. Does nothing, and needs no network, where all of it is present. With the argument `environment` it prints the
# variables that the suites are run with.
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
streams=$cache/streams-$(digest "$here/upgrade/streams/go.sum" "$here/upgrade/streams/main.go")

if [ "${1:-}" = environment ]; then
    printf 'export PATH=%q:"$PATH":/usr/sbin:/sbin NODE_PATH=%q FOREIGN_INTEROP=%q FOREIGN_STREAMS=%q\n' \
        "$python/bin" "$node/node_modules" "$interop" "$streams"
    exit 0
fi

# Runs apt-get so that no package starts the service that it brings: the suites start what they need themselves.
without_services() {
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap "rm -f $policy" EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive "$@"
}

# Installs Debian's packages for programs that are not there.
need() {
    local program=$1 missing=""
    shift
    command -v "$program" >/dev/null 2>&1 && return
    missing="$*"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing $missing"
        apt-get update -qq
        without_services apt-get install -y -qq --no-install-recommends "$@" >/dev/null
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

needs_go() {
    local go_there
    go_there=$(GOTOOLCHAIN=local go env GOVERSION | sed 's/^go//')
    if [ "$(printf '%s\n' "$go_needed" "$go_there" | sort -V | head -n 1)" != "$go_needed" ]; then
        die "needed is Go $go_needed, and this is $go_there (Debian's golang-go is older than that): install a" \
            "newer Go, for instance by unpacking the archive that the Go project offers and putting its bin/ first in PATH"
    fi
}

# Builds Go programs: the folder of their module, the folder for what comes of it, and the packages.
build_go() {
    local module=$1 to=$2
    shift 2
    needs_go
    (cd "$module" && GOTOOLCHAIN=local GOFLAGS=-mod=readonly go build -trimpath -buildvcs=false -ldflags='-s -w' -o "$to/" "$@")
}

make_interop() { build_go "$here/interop" "$1" google.golang.org/grpc/interop/client google.golang.org/grpc/interop/server; }

make_streams() { build_go "$here/upgrade/streams" "$1" .; }

need curl curl ca-certificates
need python3 python3 python3-venv
need node nodejs npm
need npm npm
need wrk wrk
need nghttpd nghttp2-server
need ip iproute2
need dig bind9-dnsutils
need knotd knot
need pdns_server pdns-server pdns-backend-bind
need unbound unbound
need nginx nginx-light
need haproxy haproxy
need socat socat
need ncat ncat
need openssl openssl
need redis-server redis-server
need redis-cli redis-tools
need dockerd docker.io
if [ ! -e "$interop/.done" ] || [ ! -e "$streams/.done" ]; then
    need go golang-go
fi
once "$python" make_python
once "$node" make_node
once "$interop" make_interop
once "$streams" make_streams
