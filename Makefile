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
# The site has an environment of its own: what builds pages is nothing that runs are made of.
DOCS_VENV ?= .venv-docs
DOCS := $(DOCS_VENV)/.installed
MKDOCS := NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs

# As tests/conftest.py orders the files, not by their numbers of tests.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install quickstart test check lint format docs docs-serve

help: ## Show this list.
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

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

docs: $(DOCS) ## Build the documentation into site/, strictly, without the network.
	$(MKDOCS) build --strict

docs-serve: $(DOCS) ## Show the documentation at http://127.0.0.1:8000, and build it again as it changes.
	$(MKDOCS) serve

$(DOCS): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[docs]'
	@touch $@

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
