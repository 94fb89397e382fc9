# `make demo` trains a model on this computer's own vitals. `make test` runs all tests, and installs what they need.

PYTHON ?= python3
CHAOS_KILLS ?= 20
STATE_WALKS ?= 2000
SEEDS ?= 10000
FIRST ?= 0
WALKS = $(wildcard tests/test_chains.py tests/test_states.py tests/test_keras_states.py)
LINES = $(wildcard tests/test_interrupts.py tests/test_keras_interrupts.py)
# What is alike on any backend is tested on torch, which compiles nothing, as are tests with the mark any_backend.
ALIKE = $(patsubst %,tests/test_keras_%.py,mix logs rounds prequential_join)
# Thousands of steps, which torch takes long for.
LONG = $(patsubst %,tests/test_keras_%.py,examples readme)
EACH = $(filter-out $(ALIKE) $(LONG),$(wildcard tests/test_keras_*.py))
# What does not depend on how Keras is made.
OWN = $(patsubst %,tests/test_keras_%.py,backend states interrupts recorder)
# What depends on the versions of the libraries that read files.
FILES = $(patsubst %,tests/test_files_%.py,formats rows)
PYTEST = .venv/bin/python -m pytest -q
# A worker that has nothing left takes over tests of the other one.
BOTH = -n 2 --dist worksteal
# Hundreds of tests start processes, each of which would compile the library's modules.
unexport PYTHONDONTWRITEBYTECODE
# Files of tests are in memory where there is room: a disk's syncs take a third of the processor time of such tests. What a
# kill leaves is the same; a loss of power is simulated.
IN_MEMORY := $(shell [ -w /dev/shm ] && [ "$$(df -Pk /dev/shm | awk 'NR == 2 { print $$4 }')" -gt 4000000 ] && echo /dev/shm)
ifneq ($(IN_MEMORY),)
export PYTEST_DEBUG_TEMPROOT = $(IN_MEMORY)
endif
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable

OLDEST = .venv-oldest/bin/python

.PHONY: demo test lint core backends oldest chaos-short chaos simulate bench docs

demo: .venv/.demo
	@.venv/bin/unbounded demo

# -- tests ---------------------------------------------------------------------------------------------------------------

test: lint core backends oldest chaos-short

lint: .venv/.test
	.venv/bin/ruff check .
	.venv/bin/mypy

core: .venv/.test
	KERAS_BACKEND=jax $(PYTEST) $(BOTH) --ignore-glob='tests/test_keras_*' --ignore=tests/test_chaos.py

backends: .venv/.test
	KERAS_BACKEND=torch $(PYTEST) $(BOTH) $(EACH) $(ALIKE)
	KERAS_BACKEND=tensorflow $(PYTEST) $(BOTH) -m 'not any_backend' $(EACH)
	@# Of two workers, and of many models, only the first one compiles a step. (JAX 0.4.30 crashes with such a cache.)
	cache=$$(mktemp -d) && trap "rm -r $$cache" EXIT && JAX_COMPILATION_CACHE_DIR=$$cache \
		JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1 \
		KERAS_BACKEND=jax $(PYTEST) $(BOTH) -m 'not any_backend' $(EACH) $(LONG)

# With the oldest supported versions, on JAX only: all that depends on how Keras is made, and on how Arrow is.
oldest: .venv-oldest/.test
	KERAS_BACKEND=jax $(OLDEST) -m pytest -q $(BOTH) -m 'not any_backend or each_keras' $(filter-out $(OWN),$(EACH)) $(FILES)

chaos-short: .venv/.test
	CHAOS_KILLS=$(CHAOS_KILLS) $(PYTEST) tests/test_chaos.py

# 200 kills, new random walks through the states of a feed and of a fit, and signals at every line of each loop.
chaos: .venv/.test
	CHAOS_KILLS=200 $(PYTEST) tests/test_chaos.py --durations=10
	STATE_WALKS=$(STATE_WALKS) KERAS_BACKEND=jax $(PYTEST) $(BOTH) $(WALKS) --durations=10
	EVERY_LINE=1 KERAS_BACKEND=jax $(PYTEST) $(BOTH) $(LINES) --durations=10

# Training under simulated schedules, faults and crashes: `make simulate SEEDS=10000 FIRST=0`. Failing seeds are printed.
simulate: .venv/.test
	SIMULATED_SEEDS=$(SEEDS) SIMULATED_FIRST=$(FIRST) $(PYTEST) $(BOTH) tests/test_simulation.py -k whatever_the_schedule

# Speed compared with other libraries: some minutes, on a machine without other load.
bench: .venv/.bench
	.venv/bin/python -m benchmarks

# The site of docs/, in site/: a link that leads nowhere and a name that is not documented are errors.
docs: .venv/.docs
	@log=$$(.venv/bin/zensical build --clean --strict 2>&1); status=$$?; echo "$$log"; \
		case "$$log" in *griffe:*) echo "A docstring has a form that is not shown as it is meant."; exit 1;; esac; exit $$status
	@! grep -rl '<blockquote>' site/api || { echo "An example in a docstring is not shown as code: tests/docstring_fences.py"; exit 1; }

# -- the environment ---------------------------------------------------------------------------------------------------------

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python 3.11 or newer is needed, and this is %d.%d. Name one: make PYTHON=python3.12" % v[:2])'
	@$(PYTHON) -m venv .venv

# Installed once, and again when the requirements have changed.
.venv/.demo: pyproject.toml | .venv/bin/python
	@echo "Installing Keras on JAX and the demo's requirements into .venv: a minute or two."
	@$(PIP) '.[demo]'
	@touch $@

.venv/.test: pyproject.toml | .venv/bin/python
	@echo "Installing three backends and what the tests need, into .venv: some minutes."
	@$(PIP) '.[test]'
	@touch $@

.venv-oldest/.test: pyproject.toml tests/oldest-versions.txt | .venv/bin/python
	@echo "Installing the oldest versions that are supported, into .venv-oldest."
	@$(PYTHON) -m venv .venv-oldest
	@$(OLDEST) -m pip install --quiet --disable-pip-version-check --constraint tests/oldest-versions.txt \
		--editable '.[jax,files]' pytest pytest-xdist hypothesis
	@touch $@

.venv/.bench: pyproject.toml | .venv/bin/python
	@$(PIP) '.[bench]'
	@touch $@

.venv/.docs: pyproject.toml | .venv/bin/python
	@$(PIP) '.[docs]'
	@touch $@
