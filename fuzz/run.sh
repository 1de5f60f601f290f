#!/usr/bin/env bash
# Runs every fuzzer, or those named, for FUZZ_SECONDS each (60). Installs the toolchain when it is not there yet.
set -euo pipefail
cd "$(dirname "$0")"
seconds="${FUZZ_SECONDS:-60}"

rustup toolchain list | grep -q '^nightly' || rustup toolchain install nightly --profile minimal
. ./versions.sh
host="$(rustc +nightly -vV | sed -n 's/^host: //p')"
RUSTC_WRAPPER="$PWD/rustc.sh" cargo +nightly build --release --bins --target "$host"

targets=("$@")
[ "${#targets[@]}" -gt 0 ] || mapfile -t targets < <(basename -a -s .rs fuzz_targets/*.rs)
failed=()
for target in "${targets[@]}"; do
	# What is found stays out of the repository until somebody thinks it worth keeping.
	work="target/corpus/$target"
	mkdir -p "$work" "artifacts/$target"
	corpora=("$work")
	[ ! -d "corpus/$target" ] || corpora+=("corpus/$target")
	echo "== $target"
	"./target/$host/release/$target" "${corpora[@]}" "-artifact_prefix=artifacts/$target/" \
		"-max_total_time=$seconds" -timeout=20 -rss_limit_mb=4096 -verbosity=0 -print_final_stats=1 ||
		failed+=("$target")
done
if [ "${#failed[@]}" -gt 0 ]; then
	echo "found something: ${failed[*]} (fuzz/artifacts)" >&2
	exit 1
fi
