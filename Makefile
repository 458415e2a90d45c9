# Everything a fresh machine needs: `make demo` to see it work, `make test` to check it.
# PYTHON chooses the interpreter (default python3); VENV the environment (default .venv).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN ?= runs/demo_digits

export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: help install demo test lint clean

help:
	@echo "make install make $(VENV) and install debugnet into it (the others do it by themselves)"
	@echo "make demo    install into $(VENV), run the whole chain on handwritten digits, show what it made"
	@echo "make test    run the tests (two processes)"
	@echo "make lint    style, types, import rules, docstrings"
	@echo "(scripts/bench_*.py: the commands and their figures are in docs/benchmarks.md)"

install: $(STAMP)

demo: $(STAMP)
	@echo "==> the chain on handwritten digits: train, extract, fit the path, select, analyze"
	@$(BIN)/debugnet run configs/demo_digits.yaml -o $(RUN)

test: $(STAMP)
	@echo "==> tests"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -q

lint: $(STAMP)
	@echo "==> style (ruff)"
	@$(BIN)/ruff check debugnet tests scripts
	@$(BIN)/ruff format --check debugnet tests scripts
	@echo "==> types (mypy)"
	@$(BIN)/mypy
	@echo "==> import rules (import-linter)"
	@$(BIN)/lint-imports
	@echo "==> docstrings"
	@$(BIN)/python -m pytest -q tests/test_docstrings.py

# Installed once; again whenever pyproject.toml changes.
$(STAMP): pyproject.toml
	@test -x $(BIN)/python || { echo "==> making the virtual environment $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@echo "==> installing debugnet and what it needs into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --upgrade --quiet --disable-pip-version-check pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
	@echo "==> installed"

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
