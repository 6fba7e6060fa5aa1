# Everything a contributor or CI runs. `make` alone prints this list.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked
INSTALLED := $(VENV)/.installed
CODE := $(wildcard src tests examples bench)

.DEFAULT_GOAL := help
.PHONY: help setup check test test-many demo chaos bench format lock requirements clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(INSTALLED) ## create .venv from the lock; done again only when the lock or pyproject.toml changes

check: $(INSTALLED) ## format, lint, types, import contracts, structure
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/structure

# What decides on rows, waits for them or recovers from them; other tests only use a store.
STORED := $(wildcard tests/unit/store tests/unit/api tests/properties) $(wildcard $(addprefix tests/scenarios/test_, \
  approvals.py cancel.py closing.py conversations.py effects.py limits.py processes.py resume.py takeover.py tool_cache.py \
  turns.py unknown_outcomes.py))

# Many processes on Postgres: engine, workers, and a cluster under random kills.
MANY := tests/engine tests/cluster $(wildcard $(addprefix tests/chaos/test_, cluster.py workers.py zombie.py)) \
  $(wildcard tests/kit/test_tau_workers.py)
HALF := tests/unit tests/types tests/structure tests/properties tests/kit  # not scenarios: a background job ignores Ctrl+C

test: $(INSTALLED) ## all tests of one process, in two halves side by side
	@log=$$(mktemp); $(BIN)/python -m pytest -q $(HALF) $(MANY:%=--ignore=%) >$$log 2>&1 & half=$$!; \
	$(BIN)/python -m pytest -q $(HALF:%=--ignore=%) $(MANY:%=--ignore=%); rest=$$?; \
	wait $$half; code=$$?; cat $$log; rm $$log; exit $$((code + rest))

test-many: $(INSTALLED) ## the tests of Postgres: the store's own again, and many processes
	$(BIN)/python -m pytest -q --store postgres $(STORED)
	$(BIN)/python -m pytest -q $(MANY)

demo: $(INSTALLED) ## the support desk, offline, no key needed
	$(BIN)/python -m examples.support_desk

chaos: $(INSTALLED) ## the tests that kill processes
	$(BIN)/python -m pytest -q -m chaos

bench: $(INSTALLED) ## the benchmarks
	$(BIN)/python bench/run.py

format: $(INSTALLED) ## write what `make check` would ask for, where it can be written
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format .

requirements: $(INSTALLED) ## fill docs/requirements.toml from the markers on the tests
	$(BIN)/python -m tests.structure.requirements

lock: ## resolve the lock again, keeping what still fits (UPGRADE=1: newest versions)
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-emit-index-url --no-emit-find-links -q \
	  $(if $(UPGRADE),--upgrade) -o requirements/dev.txt

clean: ## remove what make made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv reads the lock about fifteen times as fast as pip; pip does it where uv cannot (an index behind pip's own settings).
$(LOCKED): requirements/dev.txt requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Roadworthy needs Python 3.11 or newer: make PYTHON=python3.x")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/dev.txt \
	  || $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(INSTALLED): $(LOCKED) pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
