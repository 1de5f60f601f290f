#!/usr/bin/env bash
# Calls rustc as cargo asks (RUSTC_WRAPPER). Crates that decide about bytes from outside tell the fuzzer where they go:
# ours and the parsers they use. wasmtime's compiler, which is most of the code, is left alone, and so is what runs while
# building: with a --target, cargo names it for the rest alone.
watched=" sluicegate sluicegate_sdk headers router sticky ua_block httparse rustls saphyr_parser serde_json wasmparser wit_component wit_parser "
name=""
for ((i = 1; i <= $#; i++)); do
	[ "${!i}" != --crate-name ] || { i=$((i + 1)); name="${!i}"; }
done
case "$watched:$*" in
*" $name "*:*" --target "*)
	exec "$@" -Cpasses=sancov-module \
		-Cllvm-args=-sanitizer-coverage-level=4 \
		-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
		-Cllvm-args=-sanitizer-coverage-pc-table \
		-Cllvm-args=-sanitizer-coverage-trace-compares
	;;
esac
exec "$@"
