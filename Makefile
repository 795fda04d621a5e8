# Everything runs in $(VENV). Set-up is done once: it is repeated only when pyproject.toml or
# constraints.txt changed, and needs no network where the pinned packages are there already.

PYTHON := python3
VENV := .venv
BIN := $(VENV)/bin
OUT := out/demo

PYTEST = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n 2 --dist worksteal
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt
FOR_DEMO := $(VENV)/.installed-demo
FOR_DEV := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-long test-slow lint type lowest pythons evidence reference clean

help:
	@echo "make demo     set up, then encode, reconstruct, edit, interpolate and sample: $(OUT)/index.html"
	@echo "make test     set up, then run the tests (RDM_GOLDEN names the folder of golden tensors)"
	@echo "make test-long, make test-slow  what takes longer: seconds a test, which CI runs, and minutes a test"
	@echo "make lint     ruff: rules and formatting"
	@echo "make type     mypy, strict, on the package"
	@echo "make lowest   a part of the tests with the lowest versions that pyproject.toml claims"
	@echo "make pythons  the tests that need no torch, on each newer Python of this machine"
	@echo "make evidence docs/evidence.md from the shipped bundles; PART=... for some of it, HELD_OUT and TRAIN"
	@echo "              for folders of avatars that are there (two hours on two cores; goes on where"
	@echo "              it was stopped; AGAIN=1 measures once more what is kept)"
	@echo "make reference docs/cli.md, the help pages of all commands"
	@echo "make install  set up $(VENV) with the rdm command and nothing more"
	@echo "make clean    remove out/, builds and caches; $(VENV) and runs/ stay"

install: $(FOR_DEMO)

demo: $(FOR_DEMO)
	$(BIN)/rdm demo -o $(OUT) --force
	@echo "Open $(OUT)/index.html in a browser."

# Two processes of one thread each: two cores, and no more memory than two copies of torch.
test: $(FOR_DEV)
	$(PYTEST) $(PYTEST_ARGS)

test-long: $(FOR_DEV)
	$(PYTEST) -m long $(PYTEST_ARGS)

# Clusters, launchers and a hundred kills: one process, which has both cores.
test-slow: $(FOR_DEV)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

lint: $(FOR_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(FOR_DEV)
	$(BIN)/mypy

# Each in environments of its own, below .ci/venvs.
lowest pythons:
	.ci/other-versions $@

# With the packages that the tests run with, so that figures compare.
evidence: $(FOR_DEV)
	$(BIN)/python benchmarks/make_evidence.py $(PART:%=--part %) $(HELD_OUT:%=--held-out %) $(TRAIN:%=--train %) $(AGAIN:%=--again)

# README's first picture.
docs/figures/overview.png: $(FOR_DEMO)
	$(BIN)/rdm demo -o $(OUT) --force
	cp $(OUT)/overview.png $@

reference: $(FOR_DEMO)
	$(BIN)/python benchmarks/make_cli_reference.py

clean:
	rm -rf out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find rdm_cli tests benchmarks -type d -name __pycache__ -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The build backend is pinned like the rest, and so are builds without the network.
$(FOR_DEMO): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing rdm into $(VENV) (a minute or two, once)"
	$(PIP_INSTALL) hatchling
	$(PIP_INSTALL) --no-build-isolation -e ".[demo]"
	@touch $@

$(FOR_DEV): $(FOR_DEMO)
	@echo "Installing the developer's tools into $(VENV)"
	$(PIP_INSTALL) --no-build-isolation -e ".[dev]"
	@touch $@
