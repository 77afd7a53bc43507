# `make demo` and `make test` do all their own set-up; a second run starts at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= output/sample

.PHONY: demo page test test-slow lint format types clean

demo: $(VENV)/.ready            ## run the main job on the sample clip
	$(BIN)/python -m checkpoints fetch --default
	$(BIN)/python -m demo sample --out $(OUT)

page: $(VENV)/.ready            ## open the page on http://127.0.0.1:7860
	$(BIN)/python -m checkpoints fetch --default
	$(BIN)/python -m demo

test: $(VENV)/.ready-dev        ## all tests but the slow ones
	$(BIN)/python -m checkpoints fetch --default sample_bunny
	$(BIN)/python -m pytest

test-slow: $(VENV)/.ready-dev   ## the slow tests
	$(BIN)/python -m checkpoints fetch --default sample_bunny
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.ready-dev        ## style and types, as CI checks them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:                          ## results only; weights and the environment stay
	rm -rf output

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("MixCut needs Python 3.10 or newer" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.ready-dev: requirements-dev.txt $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
