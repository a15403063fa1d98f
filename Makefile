# Needs only Python >= 3.10 and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.synced
PINS := uv.lock pyproject.toml setup.py training/pyproject.toml training/setup.py $(wildcard training/fewshotseg_training/*.pyx)
PYTEST := $(BIN)/python -m pytest

.PHONY: help setup demo app screenshots test test-slow parity bench lint format lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: $(STAMP)  ## create .venv with the library, the training package and the developer tools

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Found Python %d.%d. Expected: 3.10 or newer. What to do: make PYTHON=/path/to/python3 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade uv

$(STAMP): $(PINS) | $(BIN)/uv
	UV_PROJECT_ENVIRONMENT=.venv $(BIN)/uv sync --frozen --all-packages --compile-bytecode --python $(BIN)/python
	@touch $@

demo: setup  ## segment the embedded case: table, segmentation, picture and report in build/demo
	$(BIN)/fewshotseg demo --output build/demo

app: setup  ## the web page: draw, segment, correct and download in a browser
	$(BIN)/fewshotseg app --browser

screenshots: setup  ## pictures of the Slicer panel on the test host, the web page and a cohort (needs Chromium)
	PYTHONPATH=Testing $(BIN)/python -m slicer_host.screenshots Resources/screenshots
	$(BIN)/python Testing/app_screenshots.py Resources/screenshots
	$(BIN)/python Testing/cohort_screenshots.py Resources/screenshots

test: setup  ## every test that is not marked slow
	$(PYTEST) -m "not slow"

test-slow: setup  ## the tests marked slow
	$(PYTEST) -m slow

parity: setup  ## the published methods' golden vectors only
	$(PYTEST) -m parity

bench: setup  ## time and memory of the main job, and of training
	$(BIN)/python -m FewShotSegLib.evaluation.bench
	$(BIN)/python -m fewshotseg_training.bench

lint: setup  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## put the code into the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(BIN)/uv  ## resolve the dependencies anew
	$(BIN)/uv lock --upgrade

clean:  ## remove the environment and everything built
	rm -rf .venv build dist *.egg-info training/build training/*.egg-info .mypy_cache .pytest_cache .ruff_cache
	rm -f training/fewshotseg_training/*.so training/fewshotseg_training/*.c training/fewshotseg_training/*.cpp
