# Needs make and Python 3.11 or newer, nothing else. `make help` lists what there is.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
WORKDIR ?= runs/quickstart-$(shell date +%Y%m%d-%H%M%S)

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
# The stamps say which installation the virtual environment holds.
BASE := $(VENV)/.installed
TEST := $(VENV)/.installed-test

# As tests/conftest.py orders the files, not by their numbers of tests.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install quickstart test check lint format

help: ## Show this list.
	@grep -E '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

install: $(BASE) ## Create the virtual environment and install fljax into it.

quickstart: $(BASE) ## Run a small federated training; results go to runs/.
	$(BIN)/python scripts/simulate.py --config=configs/quickstart.py --workdir=$(WORKDIR)

test: lint ## Check the style, then run all tests.
	$(PYTEST)

check: lint ## Check the style, then run the tests that take a minute.
	$(PYTEST) @tests/quick.txt

lint: $(TEST) ## Check formatting, style and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(TEST) ## Format the code and repair what ruff can repair.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(BIN)/activate:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "fljax needs Python 3.11 or newer, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(BASE): pyproject.toml constraints.txt | $(BIN)/activate
	$(PIP_INSTALL) -e .
	@touch $@

$(TEST): pyproject.toml constraints.txt | $(BIN)/activate
	$(PIP_INSTALL) -e '.[test]'
	@touch $(BASE) $@
