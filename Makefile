# Two commands for a newcomer: `make demo` and `make test`. `make` alone lists the others.
#
# Built files go to $CARGO_TARGET_DIR (or ./target); what is downloaded, and Unicorn's C library, to
# ${HOTCELL_CACHE:-${XDG_CACHE_HOME:-~/.cache}/hotcell}. Nothing else outside this folder is written.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release
CACHE := $(or $(HOTCELL_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/hotcell)
ENGINE := --package=hotcell-unicorn
BINARIES := --package=hotcell-cli --package=hotcell-inspect --package=hotcell-monitor --package=hotcell-qemu $(ENGINE)
XTASK := $(CARGO) run -q -p xtask --
# Tools that `make deny` installs.
export PATH := $(CACHE)/tools/bin:$(PATH)

# Unicorn's C library, patched and built once into the cache: the crate's build script finds it by pkg-config.
WITH_UNICORN = unicorn=$$($(XTASK) unicorn-library); export PKG_CONFIG_PATH="$$unicorn$${PKG_CONFIG_PATH:+:$$PKG_CONFIG_PATH}"
# Guest programs, built once into the cache.
WITH_GUESTS = HOTCELL_GUESTS=$$($(XTASK) guests); export HOTCELL_GUESTS
SAMPLES := examples/first-look/samples

# Everything that ends up in the executables.
SOURCES := $(shell find Cargo.toml Cargo.lock schema runner arch-profiles manifests templates -type f \
	-not -name '*.snap' -not -path '*/tests/*' -not -path '*/xtask/*' 2>/dev/null)

.PHONY: help demo man test test-long lab conformance lint deny bench bench-pipelines fuzz schema docs samples guests packages clean-cache

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "make %-16s %s\n", $$1, $$2}'

demo: $(RELEASE)/.hotcell-built ## Build everything and send five architectures through examples/first-look
	@.ci/fetch-samples $(SAMPLES)
	@$(RELEASE)/hotcell run examples/first-look/first-look.toml

$(RELEASE)/.hotcell-built: $(SOURCES)
	@.ci/install-packages build
	@echo "build: release mode, into $(RELEASE)"
	@# The engine by itself: built together, it would get capstone's tables for all architectures, which every cell relocates.
	@$(WITH_UNICORN); $(CARGO) build --release $(filter-out $(ENGINE),$(BINARIES)) && $(CARGO) build --release $(ENGINE)
	@touch $@

test: ## Every test of the default tier
	@.ci/install-packages build test
	@.ci/fetch-samples --packer $(SAMPLES)
	@echo "test: executables"
	@$(WITH_UNICORN); $(CARGO) build $(BINARIES)
	@echo "test: guest programs"
	@$(XTASK) guests >/dev/null
	@echo "test: everything"
	@$(WITH_UNICORN); $(WITH_GUESTS); export HOTCELL_BIN_DIR="$(abspath $(TARGET))/debug"; \
	if $(CARGO) nextest --version >/dev/null 2>&1; \
	then $(CARGO) test -q --workspace --doc && $(CARGO) nextest run --workspace --no-fail-fast; \
	else $(CARGO) test --workspace --no-fail-fast; fi

test-long: ## The tests that take minutes too (200 kills, a disk that fails in 64 runs, Debian's mirror, make lab)
	@.ci/install-packages build test
	@.ci/fetch-samples --packer $(SAMPLES)
	@$(WITH_UNICORN); $(CARGO) build $(BINARIES)
	@$(WITH_UNICORN); $(WITH_GUESTS); export HOTCELL_BIN_DIR="$(abspath $(TARGET))/debug"; \
	if $(CARGO) nextest --version >/dev/null 2>&1; \
	then $(CARGO) nextest run --workspace --no-fail-fast --run-ignored all; \
	else $(CARGO) test --workspace --no-fail-fast -- --include-ignored; fi
	@$(MAKE) lab

lab: $(RELEASE)/.hotcell-built ## Boot machines with four cores under QEMU, and run the executables there (minutes: QEMU emulates them)
	@.ci/install-packages lab
	@$(WITH_UNICORN); $(CARGO) build --release -p hotcell-tests --bin hotcell-lab
	@time $(XTASK) lab "$(abspath $(RELEASE))" $(LAB)

conformance: $(RELEASE)/.hotcell-built ## Debian's programs on ten architectures beside qemu-user and Qiling, into tests/conformance/CONFORMANCE.md (needs Debian's mirror once; an hour)
	@.ci/install-packages build test conformance
	@$(CARGO) run -q -p xtask --features conformance -- conformance "$(abspath $(RELEASE))" $(if $(ONLY),--only '$(ONLY)')

lint: ## Formatting, clippy, the project's own rules, licences
	@.ci/install-packages build
	$(CARGO) fmt --all --check
	$(XTASK) tidy
	$(CARGO) run -q -p xtask --features schemas -- schemas --check
	$(CARGO) run -q -p xtask --features schemas -- reference --check
	@$(WITH_UNICORN); echo "$(CARGO) clippy --workspace --all-targets -- -D warnings"; \
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(MAKE) deny; \
	else echo "lint: cargo-deny is not installed, licences are not checked (make deny installs it)"; fi

deny: ## Licences and sources of every dependency (installs cargo-deny into the cache the first time)
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked --root $(CACHE)/tools
	$(CARGO) deny --workspace check licenses bans sources
	$(CARGO) deny --manifest-path runner/unicorn/Cargo.toml --config runner/unicorn/deny.toml check licenses bans

bench: $(RELEASE)/.hotcell-built ## What cores cost, and ratios against other emulators and runners, in one run; BENCH=cores for a part
	@.ci/install-packages build test bench
	@.ci/fetch-samples $(SAMPLES)
	@$(WITH_UNICORN); $(CARGO) build --release -p hotcell-unicorn -p hotcell-cells --examples
	@$(CARGO) run -q -p xtask --features bench -- bench $(BENCH) "$(abspath $(RELEASE))"

bench-pipelines: $(RELEASE)/.hotcell-built ## Ratios against make, ninja and Snakemake; BENCH='--only plan,cached --count 1000'
	@.ci/install-packages build test bench
	@$(CARGO) run -q -p xtask --features bench -- bench pipelines "$(abspath $(RELEASE))" $(BENCH)

fuzz: ## Fuzz what reads hostile bytes, FUZZ_SECONDS each (default 60); needs cargo-fuzz and a nightly compiler
	@$(CARGO) +nightly fuzz --version >/dev/null 2>&1 || { echo "fuzz: needs rustup's nightly toolchain and cargo-fuzz" >&2; exit 4; }
	@# Beside the corpus that is kept, every document and archive of this repository is a seed.
	@export ASAN_OPTIONS=detect_odr_violation=0; seeds=$$(mktemp -d); trap 'rm -rf "$$seeds"' EXIT; \
	mkdir -p $$seeds/manifest_toml $$seeds/manifest_yaml $$seeds/unpack $$seeds/rules; \
	for kind in toml yaml; do find golden/broken examples manifests runner/plan/tests/reference -name "*.$$kind" \
	-exec cp --backup=numbered -t $$seeds/manifest_$$kind {} +; done; \
	cp -t $$seeds/unpack runner/inspect/tests/archives/*; rm $$seeds/unpack/make $$seeds/unpack/README.md; \
	find runner/detect examples -path '*rule*' -name '*.toml' -exec cp --backup=numbered -t $$seeds/rules {} +; \
	for target in $$($(CARGO) +nightly fuzz list --fuzz-dir tests/fuzz); do \
	echo "fuzz: $$target"; mkdir -p tests/fuzz/corpus/$$target $$seeds/$$target; \
	$(CARGO) +nightly fuzz run --fuzz-dir tests/fuzz $$target tests/fuzz/corpus/$$target $$seeds/$$target -- \
	-max_total_time=$${FUZZ_SECONDS:-60}; done

man: $(RELEASE)/.hotcell-built ## Manual pages and completions into ./target/share, as a package installs them
	@share=$(abspath $(TARGET))/share; \
	mkdir -p $$share/man/man1 $$share/bash-completion/completions $$share/zsh/site-functions $$share/fish/vendor_completions.d; \
	$(RELEASE)/hotcell man --out $$share/man/man1; \
	$(RELEASE)/hotcell completions bash > $$share/bash-completion/completions/hotcell; \
	$(RELEASE)/hotcell completions zsh > $$share/zsh/site-functions/_hotcell; \
	$(RELEASE)/hotcell completions fish > $$share/fish/vendor_completions.d/hotcell.fish; \
	echo "man: $$share; copy it over /usr/local/share"

schema: ## Write the JSON schemas and the manifest reference again
	@$(CARGO) run -q -p xtask --features schemas -- schemas
	@$(CARGO) run -q -p xtask --features schemas -- reference

docs: ## The crates' documentation
	@$(WITH_UNICORN); $(CARGO) doc --workspace --no-deps

samples: ## Only fetch the demo's samples
	@.ci/fetch-samples $(SAMPLES)

guests: ## Only build the guest programs
	@.ci/install-packages build test
	@$(XTASK) guests

packages: ## Only install what build and tests need
	@.ci/install-packages build test

clean-cache: ## Remove what was downloaded and built outside this folder (asks nothing)
	rm -rf "$(CACHE)/unicorn" "$(CACHE)/samples" "$(CACHE)/guests" "$(CACHE)/tools" "$(CACHE)/bench" "$(CACHE)/lab" "$(CACHE)/conformance"
