# One command for each thing a contributor does. `make setup` is part of those that need it.

CARGO ?= cargo
PACKAGES := curl openssl openssh-server openssh-client nghttp2-client
PROGRAMS := curl openssl /usr/sbin/sshd ssh h2load
export CARGO_TERM_COLOR ?= auto

.PHONY: setup demo test lint build bench clean fmt reference

## Install what the build and the tests need and is not there yet.
setup:
	@./tests/setup.sh $(PACKAGES)

## Show the main job: backends, listeners and filters in one process, tried with curl.
demo: setup
	$(CARGO) build --bin sluicegate
	./target/debug/sluicegate demo --self-test

## Everything that must hold: unit, integration, documentation and example tests.
test: setup
	$(CARGO) build --bin sluicegate
	$(CARGO) test --workspace --no-fail-fast

## What a change must pass before it is read.
lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) deny --all-features --log-level error check bans licenses sources
	@if $(CARGO) deny --log-level off fetch db 2>/dev/null; then \
		$(CARGO) deny --log-level error check advisories; \
	else echo "lint: the advisory database cannot be reached from here: advisories unchecked"; fi

## The program, optimised: target/release/sluicegate
build: setup
	$(CARGO) build --release --bin sluicegate

## Beside nginx and HAProxy in one run; see tests/bench/README.md.
bench: build
	./tests/bench/run.py

## The generated key-by-key reference.
reference:
	$(CARGO) run -q --bin sluicegate -- config reference > docs/configuration.md

fmt:
	$(CARGO) fmt --all

clean:
	$(CARGO) clean
