#!/usr/bin/env bash
# Runs every suite here, that is each executable `run` in a folder beside this file, one after the other; its arguments
# are names of such folders, to run only these. The suites print a line for each case; the last line adds them up.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
eval "$("$here/setup.sh" environment)"

passed=0 failed=0 broken=""
said=$(mktemp)
trap 'rm -f "$said"' EXIT
for run in "$here"/*/run; do
    suite=$(basename "$(dirname "$run")")
    [ -x "$run" ] || continue
    [ $# = 0 ] || [[ " $* " == *" $suite "* ]] || continue
    # A suite that hangs must not hang this.
    timeout --kill-after=10 "${FOREIGN_SECONDS:-300}" "$run" | tee "$said"
    status=${PIPESTATUS[0]}
    if [[ $(tail -n 1 "$said") =~ ([0-9]+)\ passed,\ ([0-9]+)\ failed ]]; then
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
    fi
    # One that ends badly without saying of what has failed as well.
    if [ "$status" != 0 ] && [ "${BASH_REMATCH[2]:-0}" = 0 ]; then
        broken="$broken $suite"
        failed=$((failed + 1))
    fi
done
[ -z "$broken" ] || echo "foreign: these did not finish:$broken"
echo "foreign: $passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
