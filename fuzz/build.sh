#!/usr/bin/env bash
# Builds every fuzzer as far as its types go, with the usual toolchain and without running any: a name that changed in the
# product breaks them here and not on the day when somebody fuzzes. What `make lint` has checked already is used again.
set -euo pipefail
cd "$(dirname "$0")"
. ./versions.sh
cargo check --quiet --bins --target-dir ../target
