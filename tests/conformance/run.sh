#!/bin/sh
# Runs the conformance suites of others through the proxy and prints what differs; README.md says how to read it.
# Needs cargo, python3 with venv, and for the first run the package registries of Rust and Python.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${CONFORMANCE_DIR:-$root/target/conformance}
mkdir -p "$work"

say() { printf 'conformance: %s\n' "$*"; }

if ! [ -x "$work/bin/httpwg" ]; then
    say "installing httpwg-cli"
    CARGO_TARGET_DIR="$work/build" cargo install --quiet --locked --debug --root "$work" httpwg-cli@0.2.5
fi
if ! "$work/venv/bin/python" -c 'import websockets' 2>/dev/null; then
    say "installing websockets"
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check 'websockets==17.4'
fi

binary=${SLUICEGATE_BIN:-$root/target/debug/sluicegate}
[ -x "$binary" ] || cargo build --quiet --manifest-path "$root/Cargo.toml" --bin sluicegate

pids=""
stop() { for pid in $pids; do kill "$pid" 2>/dev/null || true; done; }
trap stop EXIT
trap 'exit 1' INT TERM

# Starts a server that prints its port; the port is left in $port.
start() {
    : >"$work/port"
    "$@" >"$work/port" 2>"$work/server.log" &
    pids="$pids $!"
    for _ in $(seq 100); do
        port=$(head -n 1 "$work/port")
        [ -n "$port" ] && return
        sleep 0.1
    done
    say "$* does not start:"; cat "$work/server.log"; exit 1
}

start python3 "$here/backend.py"; http=$port
start "$work/venv/bin/python" "$here/websocket.py" serve; echo=$port
listen=$(python3 -c 'import socket; s = [socket.socket() for _ in "12"]; [t.bind(("127.0.0.1", 0)) for t in s]; print(*(t.getsockname()[1] for t in s))')
h2=${listen% *}; ws=${listen#* }
cat >"$work/sluicegate.yaml" <<YAML
pools: {http: {endpoints: ["127.0.0.1:$http"]}, websocket: {endpoints: ["127.0.0.1:$echo"]}}
listeners:
  - {name: http, bind: "127.0.0.1:$h2", protocol: http, pool: http}
  - {name: websocket, bind: "127.0.0.1:$ws", protocol: http, pool: websocket}
admin: {bind: "unix:$work/admin.sock"}
YAML
"$binary" run -c "$work/sluicegate.yaml" >"$work/access.log" 2>"$work/sluicegate.log" &
pids="$pids $!"
for _ in $(seq 100); do
    if curl -qsf -o /dev/null "http://127.0.0.1:$h2/"; then break; fi
    sleep 0.1
done

failed=0
say "HTTP/2: httpwg"
SEQUENTIAL=1 "$work/bin/httpwg" --address "127.0.0.1:$h2" --frame-timeout 1000 >"$work/http2.log" 2>&1 || true
plain() { sed 's/\x1b\[[0-9;]*m//g' "$work/http2.log"; }
plain | grep 'Passed ' || { say "httpwg did not finish: $work/http2.log"; failed=1; }
plain | sed -n 's/^❌ Test failed: .* :: //p' | sort >"$work/http2-failed"
grep -v '^#' "$here/http2-differences.txt" | sort >"$work/http2-known"
new=$(comm -23 "$work/http2-failed" "$work/http2-known")
if [ -n "$new" ]; then
    say "differs, and is not in http2-differences.txt:"; echo "$new"; failed=1
fi

say "WebSocket: the same cases, direct and through the proxy"
"$work/venv/bin/python" "$here/websocket.py" compare "$echo" "$ws" || failed=1

[ "$failed" = 0 ] && say "nothing new differs"
exit "$failed"
