# make quickstart: trains a small IODINE for minutes, on two cores if there are two, and draws its slots
# make test:       runs the whole suite
# make lint:       checks style, types, and which part may import which
# make docs:       builds the documentation in build/docs; a warning is an error
# Each first installs what it needs in .venv, with the exact versions of constraints.txt. PYTHON names the interpreter.

PYTHON ?= python3
BIN := .venv/bin
# Two processes of one thread are as fast as two threads of one process, with the same result, and work like several GPUs.
PROCESSES := $(shell $(PYTHON) -c "import os; n = getattr(os, 'sched_getaffinity', None); \
	print(min(2, len(n(0)) if n else os.cpu_count() or 1))")
# A CPU with instructions for bfloat16 computes convolutions faster; others would take six times as long. macOS has no
# /proc/cpuinfo, and uses 32-true.
PRECISION := $(shell grep -qs avx512_bf16 /proc/cpuinfo && echo bf16-mixed || echo 32-true)

.PHONY: quickstart test lint docs clean

quickstart: .venv/installed
	@echo "Training on the CPU: $(PROCESSES) process(es), precision $(PRECISION)."
	$(BIN)/python train.py fit --config configs/quickstart.yaml --trainer.accelerator cpu \
		--trainer.devices $(PROCESSES) --data.batch_size $$((8 / $(PROCESSES))) --trainer.precision $(PRECISION)

test: .venv/developing
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: .venv/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --target build/typing .
	MYPYPATH=build/typing $(BIN)/mypy -p iodine_pl
	PYTHONPATH=build/typing $(BIN)/lint-imports --no-cache

docs: .venv/documenting
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs build/docs
	@echo "Open build/docs/index.html"

.venv/made:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'iodine-pl needs Python 3.10 or later')"
	$(PYTHON) -m venv .venv
	touch $@

# The package.
.venv/installed: .venv/made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "setuptools>=77" torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable .
	touch $@

# In addition the tools for tests, style and types.
.venv/developing: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	touch $@

# In addition the tools for the site.
.venv/documenting: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[docs,experiments]"
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
