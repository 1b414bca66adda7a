# Two commands for a fresh machine: `make demo` and `make test`. Each makes a virtual environment of its own first.

PYTHON ?= python3
VENV ?= .venv
DEMO_VENV ?= .venv-demo
TORCH ?= torch
BIN = $(VENV)/bin

.PHONY: demo test lint install

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

# the small model, which comes with the package: a drawn portrait talks, a drawn video is dubbed, and both are measured
demo: $(DEMO_VENV)/installed
	$(DEMO_VENV)/bin/python -m itjax.demo demo

# neither torch nor the tools of the tests
$(DEMO_VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --editable .
	touch $@

test: install lint
	$(BIN)/python -m pytest -n auto --dist loadgroup

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
