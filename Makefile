.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin
IMAGE ?= broadcast-service
# Tests wait more than they compute. JOBS=0 runs them in one process, for a debugger.
JOBS ?= 2
SEEDS ?= 2000
# The contract of the last release, which `make check` compares the protos with: a clone needs neither tags nor history.
RELEASED := protos/released.binpb
# Not in .venv, where `uv sync` would uninstall it.
UV := $(or $(shell command -v uv 2>/dev/null),build/uv/bin/uv)
# What `make run` needs, and what developers need beside it.
RUNNABLE := .venv/.runnable
INSTALLED := .venv/.installed
MEMBERS := pyproject.toml clients/python/pyproject.toml sandbox/pyproject.toml

.PHONY: help run test test-livekit check protos docs released fmt test-crash chaos simulate bench dist image lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(RUNNABLE) ## the service with everything it needs, on this machine (ARGS="--help")
	@exec $(BIN)/python -m broadcast_sandbox $(ARGS)

test: $(INSTALLED) ## all tests but the long ones (PYTEST_ARGS="-k name", TEST_DATABASE_URL=... for a server of yours)
	$(BIN)/pytest tests -m "not crash_matrix and not long and not real_livekit" -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

test-livekit: $(INSTALLED) ## the simulator against a real livekit-server, which Go installs where it is there (LIVEKIT_SERVER_BIN=...)
	$(BIN)/pytest tests/livekit -m real_livekit $(PYTEST_ARGS)

check: $(INSTALLED) ## every check that runs no test: style, types, architecture, contract, image, lock
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(BIN)/buf format protos --diff --exit-code
	$(BIN)/buf breaking protos --against $(RELEASED)
	$(BIN)/python protos/generate.py --check
	$(BIN)/python docs/generate.py --check
	$(BIN)/hadolint Dockerfile
	$(UV) lock --check

protos: $(INSTALLED) ## write the Python of the .proto files, beside them
	$(BIN)/buf format protos --write
	$(BIN)/python protos/generate.py

docs: $(INSTALLED) ## write the tables of docs/ that are made from declarations in the code
	$(BIN)/python docs/generate.py

released: $(INSTALLED) ## at a release: keep protos and words as they are, for the comparisons in `make check` and the tests
	$(BIN)/buf build protos --exclude-source-info --output $(RELEASED)
	$(BIN)/python docs/generate.py --released

fmt: $(INSTALLED) ## format everything, mend what can be mended
	$(BIN)/ruff check --fix --exit-zero
	$(BIN)/ruff format
	$(BIN)/buf format protos --write

test-crash: $(INSTALLED) ## the crash matrix: killed at every failpoint, converged after each (minutes)
	$(BIN)/python -m tests.crash.matrix $(ARGS)

simulate: $(INSTALLED) ## the simulation: thousands of worlds with faults on virtual time (SEEDS=2000 ARGS="--museum")
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

chaos: $(INSTALLED) ## Postgres restarts under load, two minutes of them (ARGS="--seconds 1800")
	$(BIN)/python -m tests.chaos $(ARGS)

bench: $(INSTALLED) ## measure the service under load
	$(BIN)/python -m tests.bench $(ARGS)

dist: | $(UV) ## build the wheels of the client and of the service into dist/
	rm -rf dist
	$(UV) build --wheel --out-dir dist --package broadcast-client
	$(UV) build --wheel --out-dir dist --package broadcast-service

image: ## build the container image (IMAGE=name:tag)
	docker build --tag $(IMAGE) .

lock: | $(UV) ## resolve the dependencies into uv.lock (ARGS="--upgrade")
	$(UV) lock $(ARGS)

clean: ## delete what is made here: environment, caches, the sandbox's data
	rm -rf .venv build dist .sandbox .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --inexact: what `make test` installed stays.
$(RUNNABLE): uv.lock $(MEMBERS) | $(UV)
	$(UV) sync --frozen --inexact --no-default-groups --group sandbox
	@touch $@

$(INSTALLED): uv.lock $(MEMBERS) | $(UV)
	$(UV) sync --frozen
	@touch $@ $(RUNNABLE)

build/uv/bin/uv:
	python3 -m venv build/uv
	build/uv/bin/python -m pip install --quiet --disable-pip-version-check uv
