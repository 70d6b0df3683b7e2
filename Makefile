# Everything sets itself up: each target makes the virtual environment it needs on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint slow gpu clean

demo: $(VENV)/installed
	$(BIN)/stkd-screen embed examples/molecules.smi -o demo.parquet --overwrite
	$(BIN)/python examples/show.py demo.parquet

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow

gpu: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m gpu

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo.parquet
