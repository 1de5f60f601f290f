# One command for each thing a contributor does. Those that need tools of the system look for them first.

CARGO ?= cargo
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 600
# Debian packages with the clients and servers that the tests are run against.
PACKAGES := curl openssl openssh-server openssh-client nghttp2-client nghttp2-server python3 slowhttptest redis-server \
	prometheus
export CARGO_TERM_COLOR ?= auto

.PHONY: setup demo test conformance foreign lint build bench instructions fuzz fuzz-build soak clean fmt reference

## Install what the build and the tests need and is not there yet: as root; else say what is missing.
setup:
	@./tests/setup.sh $(PACKAGES)

## Backends, listeners and filters in one process, tried with curl.
demo:
	@./tests/setup.sh curl
	$(CARGO) build --bin sluicegate
	./target/debug/sluicegate demo --self-test

## Everything that must hold: unit, integration, documentation and example tests.
test: setup
	$(CARGO) build --workspace --bin sluicegate
	$(CARGO) test --workspace --no-fail-fast

## Conformance suites of others through the proxy; the first run fetches them. tests/conformance/README.md says how to read it.
conformance: setup
	$(CARGO) build --bin sluicegate
	./tests/conformance/run.sh

## Clients and servers of others (gRPC, WebSocket, uploads, name servers, docker and more) through the proxy; tests/foreign/README.md says what
## the first run fetches.
foreign:
	@./tests/setup.sh curl
	@./tests/foreign/setup.sh
	$(CARGO) build --workspace --bin sluicegate
	./tests/foreign/run.sh

## What a change must pass before it is read.
lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) deny --all-features --log-level error check bans licenses sources
	@if $(CARGO) deny --log-level off fetch db 2>/dev/null; then \
		$(CARGO) deny --log-level error check advisories; \
	else echo "lint: the advisory database cannot be reached from here: advisories unchecked"; fi

## The program, optimised: target/release/sluicegate
build:
	@./tests/setup.sh
	$(CARGO) build --release --bin sluicegate

## Measure beside nginx and HAProxy, ten minutes; tests/bench/README.md says what that needs and how to read it.
bench: setup build
	./tests/bench/run.py

## Instructions per request under callgrind, three minutes: AGAINST=FILE shows the change since earlier results.
instructions: build
	@./tests/setup.sh valgrind nginx nghttp2-client openssl
	./tests/bench/instructions.py $(if $(AGAINST),--against $(AGAINST))

## Run the fuzzers, a minute each (FUZZ_SECONDS), on a nightly toolchain; fuzz/README.md says what they look for.
fuzz: setup
	FUZZ_SECONDS=$(FUZZ_SECONDS) ./fuzz/run.sh

## Whether the fuzzers still compile, with the usual toolchain; nothing is run.
fuzz-build: setup
	./fuzz/build.sh

## Good and hostile filters under load with a reload each second, ten minutes (SOAK_SECONDS): nothing may grow.
soak: setup
	$(CARGO) build --bin sluicegate
	SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test -p sluicegate-tests --test all soak -- --ignored --nocapture

## The key-by-key reference of the configuration, which the program makes; a test holds that it is current.
reference:
	$(CARGO) run -q --bin sluicegate -- config reference > docs/configuration.md.new
	mv docs/configuration.md.new docs/configuration.md

fmt:
	$(CARGO) fmt --all

clean:
	$(CARGO) clean
