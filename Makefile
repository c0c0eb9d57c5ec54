# Two commands for a newcomer: `make demo` and `make test`. Both set up everything they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# torch first and exactly: a range would let pip take a newer build with gigabytes of CUDA.
TORCH ?= torch==2.13.0

.PHONY: demo test lint types tests clean

demo: $(VENV)/.train-serve
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ghost demo

test: lint types tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

tests: $(VENV)/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest

$(VENV)/.train-serve: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet -e ".[train,serve]"
	touch $@

$(VENV)/.dev: $(VENV)/.train-serve
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache
