# Names the commands of this repository. Each target is one call of a program;
# what it does is documented there (`imager --help`, `cargo run -p qemu-tests -- --help`).

ARCH   ?= x86_64
RECIPE ?= kubeadm
NAME   ?=
KEEP   ?=
STATES ?= 500000
SEED   ?= 1
HANGS  := goes-back go-back is-reset wdat

CACHE  ?= $(or $(STERNPOST_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sternpost)
export STERNPOST_CACHE  := $(CACHE)
export CARGO_TARGET_DIR := $(CACHE)/cargo
# Where rustup puts itself, on a host that has only just got it.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

SETUP     := .ci/setup
# Built by `build` in one go: asking cargo for each alone would compile what they share anew.
BIN       := $(CARGO_TARGET_DIR)/release
SCENARIOS := $(BIN)/scenarios

.PHONY: help setup build demo check test test-all scenarios scenario crash-sim hangs bench licences prune

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## Install what is missing on this host (host-packages.txt, rust-toolchain.toml)
	$(SETUP)

build: setup ## Build the host's programs: imager, the scenario runner, the crash simulator
	cargo build --quiet --release -p imager -p qemu-tests -p crash-sim

demo: build ## The whole story in one emulated machine   [RECIPE=minimal] [ARCH=aarch64]
	$(BIN)/demo --recipe $(RECIPE) --arch $(ARCH)

check: setup ## Format, lints, every host-side test
	cargo fmt --all --check
	cargo clippy --quiet --workspace --exclude loader --all-targets -- -D warnings
	cargo clippy --quiet -p loader --target x86_64-unknown-uefi -- -D warnings
	cargo clippy --quiet -p loader --target aarch64-unknown-uefi -- -D warnings
	cargo test --quiet -p loader --lib
	cargo test --quiet --workspace --exclude loader

test: check crash-sim ## The gate: check, the crash simulator, and the scenarios that CI runs
	$(SCENARIOS) --gate --jobs 2

test-all: check crash-sim ## Everything there is, however long
	cargo test --quiet --workspace --exclude loader -- --include-ignored
	$(SCENARIOS) --all --jobs 2

scenarios: build ## List the scenarios: what each shows, how long it takes
	$(SCENARIOS) --list

scenario: build ## Run one: NAME=… [KEEP=1]
	$(SCENARIOS) $(NAME) $(if $(KEEP),--keep)

crash-sim: build ## Cut the power at every write, in memory: STATES=10000000 [SEED=1]
	$(BIN)/crash-sim --states $(STATES) --seed $(SEED)

hangs: build ## Hangs and panics in every stage, in emulated machines
	$(SCENARIOS) $(HANGS)

bench: build ## Measure speed and size; print docs/performance.md's figures
	$(BIN)/bench

licences: ## Check the licences of all dependencies (needs cargo-deny)
	cargo deny check licenses

prune: build ## Delete what no current build uses from the cache
	$(BIN)/imager cache prune
