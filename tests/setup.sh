#!/bin/sh
# Installs what the build and the tests use and is not there: the wasm target and the Debian packages named.
# Does nothing, and needs no network, where all of it is present.
set -eu

need=""
for package in "$@"; do
    case $package in
        openssh-server) program=/usr/sbin/sshd ;;
        openssh-client) program=ssh ;;
        nghttp2-client) program=h2load ;;
        nghttp2-server) program=nghttpd ;;
        prometheus) program=promtool ;;
        *) program=$package ;;
    esac
    command -v "$program" >/dev/null 2>&1 || need="$need $package"
done

if [ -n "$need" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "setup: installing$need"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $need >/dev/null
    else
        echo "setup: needed are these Debian packages (or your system's equivalents):$need" >&2
        echo "setup: as root: apt-get install --no-install-recommends$need" >&2
        exit 1
    fi
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: Rust is needed: install rustup, then run this again (rust-toolchain.toml names the version)" >&2
    exit 1
fi

# Filters are built for the first, handlers for the second.
for target in wasm32-unknown-unknown wasm32-wasip2; do
    if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
        if command -v rustup >/dev/null 2>&1; then
            echo "setup: adding the Rust target $target"
            rustup target add "$target"
        else
            echo "setup: this Rust has no standard library for $target; with rustup: rustup target add $target" >&2
            exit 1
        fi
    fi
done
