# make demo and make test do all the set-up they need.
PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export UV_FIND_LINKS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))
SOURCE ?= simulator

.PHONY: setup demo up down test lint proofs bench clean

setup: .venv/installed  ## make .venv with every package of requirements.lock

.venv/installed: requirements.lock overrides.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --requirement requirements.lock --overrides overrides.txt
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --editable .
	touch $@

demo: setup  ## eight weeks of data to a served slate, a report and two further weeks; SOURCE=, WEEK=
	$(BIN)/roiflow demo --source $(SOURCE) $(if $(WEEK),--week $(WEEK))

up: setup  ## leave the platform running
	$(BIN)/roiflow up

down:  ## end exactly what `demo` or `up` started
	$(BIN)/roiflow down

test: setup lint  ## every test, in small
	$(BIN)/python -m pytest --ignore tests/benchmarks --numprocesses 2 --dist loadfile --durations 25

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

proofs: setup  ## the long proofs in full; writes docs/proofs.md
	$(BIN)/python -m pytest -m proof --full --record docs/proofs.md

bench: setup  ## speed against peers; writes docs/benchmarks.md
	$(BIN)/python -m pytest tests/benchmarks --record docs/benchmarks.md

clean:  ## remove what runs wrote, keep the set-up
	rm -rf .roiflow data metrics plots
