# On a machine with python3, pip and make, `make demo` or `make test` is all there is to type.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := .venv-demo
READY := $(VENV)/.ready
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# Two workers keep two cores busy; more than four mostly cost memory, each of them loading torch.
WORKERS ?= auto --maxprocesses=4

# More threads than cores is what slows down torch most: one per worker.
export OMP_NUM_THREADS ?= 1

# Debian's python3 without python3-venv cannot put pip into an environment; virtualenv brings its own.
define make-venv
	$(PYTHON) -m venv $(1) || { rm -rf $(1) && \
	  $(PYTHON) -m pip install --quiet --disable-pip-version-check --target $(1)-tool virtualenv && \
	  PYTHONPATH=$(1)-tool $(PYTHON) -m virtualenv --quiet $(1) && rm -rf $(1)-tool; }
endef

.PHONY: help setup lint types format quick test lowest audit demo demo-train bench docs wheel clean

help:  ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-10s %s\n", $$1, $$2 }'

setup: $(READY)  ## A virtual environment in .venv with boxel and its tools

# The stamp is younger than pyproject.toml once everything in it is installed, so that a second run installs nothing.
$(READY): pyproject.toml
	@echo "Setting up $(VENV): a few minutes the first time, most of it downloading torch."
	$(call make-venv,$(VENV))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,docs]'
	@touch $@

lint: $(READY)  ## Style, format and the order of the packages
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: $(READY)  ## Type annotations
	$(BIN)/mypy

format: $(READY)  ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

quick: $(READY)  ## The tests of an inner loop: under a minute
	$(PYTEST) -m "not slow"

test: lint types  ## Lint, types, all tests, and the examples in docstrings
	$(PYTEST) tests src/boxel --doctest-modules

lowest: $(READY)  ## Tests of the core with the lowest versions that are allowed
	$(BIN)/python .ci/lowest.py

audit: $(READY)  ## Known vulnerabilities of the installed packages; needs the network
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --skip-editable --strict

demo: $(DEMO)/.ready  ## Label the bundled photographs: a minute, no PyTorch
	env -u OMP_NUM_THREADS $(DEMO)/bin/boxel demo

demo-train: $(READY)  ## Train from the boxes of generated scenes and from their masks: 12 minutes
	env -u OMP_NUM_THREADS $(BIN)/boxel demo --train

# A peer that cannot be installed, e.g. without a compiler, is skipped.
bench: $(READY)  ## CPU seconds and memory against peers: a quarter of an hour
	@for peer in hotcoco faster-coco-eval pydensecrf2; do \
	  $(BIN)/python -m pip install --quiet --upgrade --no-deps --target .peers $$peer || echo "$$peer: skipped"; done
	$(BIN)/python benchmarks/peers.py --peers .peers $(if $(SAM),--sam $(SAM))

# The core and the photographs, in an environment of its own.
$(DEMO)/.ready: pyproject.toml
	@echo "Setting up $(DEMO): half a minute the first time."
	$(call make-venv,$(DEMO))
	$(DEMO)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[demo]'
	@touch $@

docs: $(READY)  ## The documentation, into site/
	$(BIN)/python docs/generate.py
	$(BIN)/python benchmarks/tables.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(READY)  ## The wheel, into dist/
	rm -rf dist
	$(BIN)/hatchling build -t wheel

clean:  ## Remove build artifacts and the virtual environment
	rm -rf $(VENV) $(DEMO) dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
