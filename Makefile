# `make demo` and `make test` do everything on a fresh machine: set up .venv, then the work.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The demo and the checks need no hub; saying so spares the libraries their attempts to reach one.
offline := HF_HUB_OFFLINE=1 HF_EVALUATE_OFFLINE=1

.PHONY: setup demo test matrix lint docs clean
.DEFAULT_GOAL := help

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: $(VENV)/.installed ## make .venv with the pinned versions of constraints.txt

$(VENV)/.installed: constraints.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed here, for fine-tuning; try make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip setuptools wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[train,test]'
	@touch $@

demo: setup ## the whole job in small: data, fine-tuning, prediction, scores, into ./demo
	rm -rf $(DEMO)
	$(offline) $(BIN)/promptcblue-dataset import sample --output $(DEMO)/promptcblue --no-cache
	$(offline) $(BIN)/promptcblue-train sft demo --dataset $(DEMO)/promptcblue --output_dir $(DEMO)/model
	$(offline) $(BIN)/promptcblue-train predict --model $(DEMO)/model --dataset $(DEMO)/promptcblue --split train --output $(DEMO)/predictions-train.jsonl
	$(offline) $(BIN)/promptcblue-train predict --model $(DEMO)/model --dataset $(DEMO)/promptcblue --split test --output $(DEMO)/predictions-test.jsonl || [ $$? = 3 ] # many answers are cut: it is a toy
	@echo; echo "The samples it was trained on: has it learned the answers and how to write them?"
	@$(offline) $(BIN)/promptcblue-metric score $(DEMO)/predictions-train.jsonl --references $(DEMO)/promptcblue --split train --json $(DEMO)/scores-train.json
	@echo; echo "The test split: what a toy of about a million parameters can do with samples it never saw."
	@$(offline) $(BIN)/promptcblue-metric score $(DEMO)/predictions-test.jsonl --references $(DEMO)/promptcblue --split test --json $(DEMO)/scores-test.json
	@echo; echo "Written to $(DEMO)/:"; cd $(DEMO) && ls -d promptcblue model *.jsonl *.json

lint: setup ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: lint ## every check
	$(BIN)/pytest --numprocesses 2 --dist worksteal

docs: setup ## the documentation as a site, into ./site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

matrix: setup ## the tests on the Pythons and library versions that are supported, as far as they are here
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/python benchmarks/matrix.py

clean: ## remove what the other targets made
	rm -rf $(VENV) $(DEMO) site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
