# Two commands for a newcomer: `make demo` and `make test`. Both set up everything they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Compiling every module at install time costs a minute, most of it for modules that no stage imports: let Python
# compile what it imports, and keep it even where the shell asks not to.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types tests notebooks clean

demo: $(VENV)/.run
	ghost demo

test: lint types tests

lint: $(VENV)/.dev
	ruff check .
	ruff format --check .

types: $(VENV)/.dev
	mypy

tests: $(VENV)/.dev
	pytest --numprocesses auto --dist loadfile

notebooks: $(VENV)/.dev
	python notebooks/refresh.py

$(VENV)/.run: pyproject.toml
	@echo "Setting up $(VENV): torch, transformers and Cog, about a minute on a fast line"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -e ".[train,serve]"
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP_INSTALL) -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache demo
