# `make demo` and `make test` are all that a fresh machine with Python 3.11+ and git needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# SGLang pins other releases of torch and transformers than psr's lock: it has an environment of its own.
SGLANG_VENV := .venv-sglang
SGLANG_STAMP := $(SGLANG_VENV)/.installed
EXTRAS := dev,fetch,report,benchmark,sweep
DEMO_DIR ?= runs/quickstart
# Extra arguments for pytest or `psr run`, as in: make test ARGS="-k search -x"
ARGS ?=
# The package index's own Linux build of torch carries several GB of CUDA; this one lists builds without.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

# Threads that spin while they wait slow decoding down manyfold as soon as anything else runs on the machine.
export OMP_WAIT_POLICY ?= PASSIVE
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
export WANDB_MODE ?= offline
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow sglang test-sglang gpu lint wheel clean test-chaos test-fuzz

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## create .venv and install psr into it

demo: $(STAMP) ## run the quickstart recipe: M1 to M4 on a CPU; OPEN=1 opens the report
	$(BIN)/psr run configs/quickstart --run-dir $(DEMO_DIR) $(ARGS)
	$(if $(OPEN),$(BIN)/python -m webbrowser "file://$(abspath $(DEMO_DIR))/report/report.html")

test: $(STAMP) ## run the tests, without the slow ones
	$(BIN)/python -m pytest $(ARGS)

test-chaos: $(STAMP) ## kill runs at random, spoil their files and their server, twenty iterations
	$(BIN)/python -m pytest -m slow tests/chaos -s $(ARGS)

test-fuzz: $(STAMP) ## 10,000 odd inputs for every parser
	$(BIN)/python -m pytest -m slow tests/fuzz $(ARGS)

test-slow: $(STAMP) ## run only the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS)

sglang: $(SGLANG_STAMP) ## create .venv-sglang with an SGLang server that runs without a GPU

test-sglang: $(STAMP) $(SGLANG_STAMP) ## run the tests against a real SGLang server
	$(BIN)/python -m pytest -m sglang $(ARGS)

gpu: $(STAMP) ## prove on one GPU what a CPU cannot: tests, the quickstart's loop, speed; writes gpu.json
	$(BIN)/python benchmarks/gpu.py --json gpu.json $(ARGS)

lint: $(STAMP) ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy psr callbacks

wheel: $(STAMP) ## build the wheel into dist/
	rm -rf build # or modules that are gone by now would be packed again
	$(BIN)/python -m build --wheel

clean: ## remove caches and build products; keeps .venv and runs
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find psr callbacks tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The stamp is written last: an interrupted installation, or an older lock, is simply run again.
$(STAMP): pyproject.toml requirements-cpu.lock
	@test -x $(BIN)/pip || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "psr needs Python 3.11 or newer, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name another one: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@if nvidia-smi -L >/dev/null 2>&1; then \
		echo "An NVIDIA GPU was found: installing the newest releases that pyproject.toml allows."; \
		$(BIN)/pip install -e '.[$(EXTRAS),qlora]'; \
	else \
		echo "No NVIDIA GPU was found: installing requirements-cpu.lock."; \
		{ $(BIN)/pip install --no-deps --retries 0 --timeout 30 --extra-index-url $(TORCH_CPU_INDEX) \
			"$$(grep '^torch==' requirements-cpu.lock)" \
			|| echo "torch could not be had that way: trying again with the rest."; } && \
		$(BIN)/pip install -r requirements-cpu.lock && \
		$(BIN)/pip install --no-deps --no-build-isolation -e .; \
	fi
	@touch $@

# SGLang itself and xgrammar would pull CUDA packages of many GB: they come last, without what they require.
$(SGLANG_STAMP): requirements-sglang-cpu.lock
	@test -x $(SGLANG_VENV)/bin/pip || $(PYTHON) -m venv $(SGLANG_VENV)
	@{ $(SGLANG_VENV)/bin/pip install --no-deps --retries 0 --timeout 30 --extra-index-url $(TORCH_CPU_INDEX) \
		"$$(grep '^torch==' requirements-sglang-cpu.lock)" \
		|| echo "torch could not be had that way: trying again with the rest."; }
	grep -v -E '^(sglang|xgrammar)==' requirements-sglang-cpu.lock | $(SGLANG_VENV)/bin/pip install -r /dev/stdin
	grep -E '^(sglang|xgrammar)==' requirements-sglang-cpu.lock | $(SGLANG_VENV)/bin/pip install --no-deps -r /dev/stdin
	@touch $@
