#!/usr/bin/env bash
# Runs every fuzzer, or those named, for FUZZ_SECONDS each (60). Installs what it needs and is not there yet.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds="${FUZZ_SECONDS:-60}"

rustup toolchain list | grep -q '^nightly' || rustup toolchain install nightly --profile minimal
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
# The versions that the product is built from.
cmp -s Cargo.lock fuzz/Cargo.lock.from || cp Cargo.lock fuzz/Cargo.lock
cp Cargo.lock fuzz/Cargo.lock.from

# Coverage without a sanitizer: there is next to no unsafe code to watch, and one build of wasmtime is enough.
fuzz() { cargo +nightly fuzz "$@"; }
fuzz build --sanitizer none

targets=("$@")
[ "${#targets[@]}" -gt 0 ] || mapfile -t targets < <(fuzz list)
failed=()
for target in "${targets[@]}"; do
	# What is found stays out of the repository until somebody thinks it worth keeping.
	work="fuzz/target/corpus/$target"
	mkdir -p "$work"
	corpora=("$work")
	[ ! -d "fuzz/corpus/$target" ] || corpora+=("fuzz/corpus/$target")
	echo "== $target"
	fuzz run --sanitizer none "$target" "${corpora[@]}" -- \
		-max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 -verbosity=0 ||
		failed+=("$target")
done
if [ "${#failed[@]}" -gt 0 ]; then
	echo "found something: ${failed[*]} (fuzz/artifacts)" >&2
	exit 1
fi
