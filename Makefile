# Names the commands of this repository. Each target is one call of a program;
# what it does is documented there (`imager --help`, `cargo run -p qemu-tests -- --help`).

ARCH   ?= x86_64
RECIPE ?= kubeadm
NAME   ?=
KEEP   ?=
TARGET ?=
INPUT  ?=
STATES ?= 500000
N      ?= 200
SEED   ?= 1
HANGS  := goes-back go-back is-reset wdat that-panics that-faults

CACHE  ?= $(or $(STERNPOST_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sternpost)
export STERNPOST_CACHE  := $(CACHE)
export CARGO_TARGET_DIR := $(CACHE)/cargo
# Where rustup puts itself, on a host that has only just got it.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

SETUP     := .ci/setup
STAGES    := .ci/stages
# Without one on the command line, that of the commit.
GATE_SEED := $(if $(filter command,$(firstword $(origin SEED))),$(SEED))
# Many tests wait for deadlines, not for the processor.
export RUST_TEST_THREADS ?= 8
# Built by `build` in one go: asking cargo for each alone would compile what they share anew.
BIN       := $(CARGO_TARGET_DIR)/release
SCENARIOS := $(BIN)/scenarios
# Each job has a copy of the tree and its own target directory.
MUTANTS   := env -u CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=0 cargo mutants --jobs 2 --output $(CACHE)/mutants

.PHONY: help setup build demo check test test-all scenarios ledger scenario crash-sim power-cuts corruption fuzz hangs mutants bench licences prune

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## Install what is missing on this host (host-packages.txt, rust-toolchain.toml)
	$(SETUP)

build: setup ## Build the host's programs: imager, the scenario runner, the crash simulator and so on
	cargo build --quiet --release -p imager -p qemu-tests -p crash-sim

demo: build ## The whole story in one emulated machine   [RECIPE=minimal] [ARCH=aarch64]
	$(BIN)/demo --recipe $(RECIPE) --arch $(ARCH)

check: ## Format, lints, every host-side test
	$(STAGES) check $(GATE_SEED)

test: ## The gate: check, the crash simulator, some fuzzing, the scenarios that CI runs, a handful of power cuts   [SEED=…]
	$(STAGES) test $(GATE_SEED)

test-all: ## Every test there is, however long   [SEED=…]
	$(STAGES) test-all $(GATE_SEED)

scenarios: build ## List the scenarios: what each shows, how long it takes
	$(SCENARIOS) --list

ledger: build ## When each scenario ran last, on what, and how it ended
	$(SCENARIOS) --ledger

scenario: build ## Run one: NAME=… [KEEP=1]
	$(SCENARIOS) $(NAME) $(if $(KEEP),--keep)

crash-sim: build ## Cut the power at every write, in memory: STATES=10000000 [SEED=1]
	$(BIN)/crash-sim --states $(STATES) --seed $(SEED)

power-cuts: build ## Cut the power of emulated machines: N=1000 [SEED=1]; goes on where it was interrupted
	$(BIN)/power-cuts --cuts $(N) --seed $(SEED)

mutants: setup ## Change boot-core and the decisions in bootctl everywhere, and see whether a test notices (needs cargo-mutants)
	$(MUTANTS) --package boot-core -- --tests
	$(MUTANTS) --package bootctl $(addprefix --file bootctl/src/,boot/control.rs boot/verdict.rs boot/slot_check.rs install/preconditions.rs service/step/mod.rs service/step/idle.rs) -- --tests

corruption: build ## Damage every region of a disk, in memory and then in emulated machines: [SEED=1]
	$(BIN)/corruption --seed $(SEED)
	$(SCENARIOS) --jobs 2 --seed $(SEED) $$($(BIN)/corruption --scenarios)

fuzz: build ## Feed the parsers at random: SECONDS=3600 [SEED=1] [TARGET=…] [INPUT=…]
	$(BIN)/fuzz --seed $(SEED) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(TARGET),--target $(TARGET)) $(if $(INPUT),--input $(INPUT))

hangs: build ## Hangs and panics in every stage, in emulated machines: [SEED=1]
	$(SCENARIOS) --jobs 2 --seed $(SEED) $(HANGS)

bench: build ## Measure speed and size; print docs/performance.md's figures
	$(BIN)/bench

licences: ## Check the licences of all dependencies (needs cargo-deny)
	cargo deny check licenses

prune: build ## Delete what no current build uses from the cache
	$(BIN)/imager cache prune
