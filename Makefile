# llm-server: `make serve` runs it, `make test` proves it, `make help` lists the rest.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help tools build serve test appliance-test lint fmt bench churn cuda deb gpu-bundle

CARGO ?= cargo
# Everything is built for this one profile: llama.cpp takes minutes and is compiled once.
PROFILE := --release --locked
SERVER := target/release/llm-server
VENV := target/venv
# (ccache, when present, is found and used by llama.cpp's own build.)
# `SET` may hold quotes, so it reaches the recipes through the environment, not as text.
export SET

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name what; do printf '  make %-14s %s\n' "$$name" "$$what"; done
	@echo "  make serve SET='listen = \"127.0.0.1:9000\"'    overrides any option of config.ncl"

tools: ## install what the other targets need (Debian: with apt)
	@.ci/tools

build: tools ## the release binary
	$(CARGO) build $(PROFILE)

serve: build ## fetch the pinned model, start the server, ask it a question
	@.ci/greet $$$$ & exec $(SERVER) serve --fetch $${SET:+--set "$$SET"}

# Without nextest the tests of a file share a process, and so tracing's global caches: one at a time.
test: tools $(VENV)/ready $(VENV)-litellm/ready ## every test, with the real engine, the small model and official clients
	@command -v node >/dev/null || echo "node is not installed: NO JAVASCRIPT CLIENT WILL BE TESTED" >&2
	@export LLM_SERVER_TEST_VENV='$(CURDIR)/$(VENV)'; \
	if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run $(PROFILE) --profile $${NEXTEST_PROFILE:-default}; \
	else \
		echo "cargo-nextest is not installed: using cargo test"; \
		timeout 45m $(CARGO) test $(PROFILE) --all-targets --no-fail-fast -- --test-threads 1; \
	fi

appliance-test: build ## the service under a real systemd, in a container (needs root, Debian)
	@tests/appliance/run.sh

# Rebuilt when the pinned versions change.
$(VENV)/ready: tests/clients/requirements.txt
$(VENV)-litellm/ready: tests/clients/requirements-litellm.txt
$(VENV)%ready: | tools
	python3 -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@cp $< $@

lint: tools ## formatting, clippy without warnings, licences
	$(CARGO) fmt --check
	$(CARGO) clippy $(PROFILE) --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --all-features check licenses bans sources; \
	else echo "cargo-deny is not installed: licences were not checked"; fi
	@if command -v shellcheck >/dev/null; then shellcheck -x .ci/* benches/*.sh contrib/*.sh nix/*.sh tests/appliance/*.sh; \
	else echo "shellcheck is not installed: scripts were not checked"; fi

fmt: tools ## format the code
	$(CARGO) fmt

bench: build ## speed against llama-server of the same build, interleaved
	@benches/peer.sh

cuda: build ## the CUDA plugin beside the binary (CUDA_ARCHITECTURES=120a-real for an RTX 50 alone)
	@benches/cuda.sh

deb: build ## a Debian package of the release build
	@contrib/deb.sh

gpu-bundle: build ## what benches/gpu.sh needs on a bare GPU machine
	@benches/gpu-bundle.sh

churn: build ## a thousand requests, a fifth of which hang up: nothing may break or leak
	@benches/churn.sh
