# The two commands of the project: `make demo` and `make test`. Both install what they need.
DUNLIN_CACHE ?= $(HOME)/.cache/dunlin
export DUNLIN_CACHE
export CARGO_TARGET_DIR ?= $(DUNLIN_CACHE)/target
export CARGO_TERM_COLOR ?= auto

# Everything is built as whoever you are; what builds sandboxes runs as root.
ifneq ($(shell id -u),0)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER ?= sudo -E
endif

.PHONY: help demo test soak build setup bench fmt clean-cache

help:
	@echo "make demo    build, start a platform, deploy and call functions in every installed language"
	@echo "make test    everything CI runs"
	@echo "make soak    15 minutes of mixed load; SOAK_SECONDS says otherwise"
	@echo "make build   build ./build/dunlin"
	@echo "make bench   measure the promises beside bare interpreters and other servers; writes benches/RESULTS.md"

setup:
	@scripts/setup

build: setup
	@cargo xtask assets
	@cargo build --workspace --bin dunlin --bin dunlin-bench
	@mkdir -p build && ln -sf "$(CARGO_TARGET_DIR)/debug/dunlin" build/dunlin && ln -sf "$(CARGO_TARGET_DIR)/debug/dunlin-bench" build/dunlin-bench

demo: build
	@scripts/demo

test: setup
	@cargo xtask test

bench: build
	@scripts/bench-setup
	@mkdir -p benches
	@build/dunlin-bench all --markdown benches/RESULTS.md --json benches/results.json

soak: setup
	@cargo xtask assets
	@cargo build --workspace --bin dunlin
	@SOAK_SECONDS=$${SOAK_SECONDS:-900} cargo test --workspace --test soak

fmt:
	@cargo fmt --all
