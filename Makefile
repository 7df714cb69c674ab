# make run    set up, then start the app (with no terminal on stdout: make one image and print where it is)
# make test   set up, then check the code and pass the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROMPT ?= a red cat in the desert

.DEFAULT_GOAL := help
.PHONY: help setup run test check fix screenshots terminals clean

help: ## Show the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

setup: $(STAMP) ## Make .venv with sdtui and its development tools

# Where a CPU build of torch with the pinned version lies at hand, pip takes it; on a GPU box the same pin takes CUDA's.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "sdtui needs Python 3.11 or newer; say make PYTHON=python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[schedulers,dev]'
	touch $(STAMP)

run: setup ## Start sdtui
	@$(BIN)/sdtui

check: setup ## Format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two workers: the tests start servers and torch processes of their own, more would only wait for each other.
test: check ## Check the code, then run every test
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(PYTEST_ARGS)

fix: setup ## Put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

screenshots: setup ## Make the pictures in screenshots/ from the running program
	$(BIN)/python screenshots/make.py

terminals: setup ## Try the pictures in every terminal that is here, and write the table in docs/terminals.md
	$(BIN)/python -m tests.terminal.tier3

clean: ## Remove what setup and the tests made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
