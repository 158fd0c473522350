# What CI runs, a person runs by the same words. Every target prepares what it needs; `make help` lists them.
# Needs Python 3.11-3.13 with venv, and pip that reaches a package index. Tests also need a Kafka: see CONTRIBUTING.md.

# The first Python that really runs and is new enough (a shim on the path may exist and fail). What pyenv builds unless told
# otherwise is a tenth slower (docs/decisions/0009), so it comes last; PYTHON=… has the last word.
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PLAIN := import sys, sysconfig; sys.exit("pyenv" not in sys.base_prefix or "--enable-optimizations" in sysconfig.get_config_var("CONFIG_ARGS"))
PYTHON ?= $(shell for p in $$(which -a python3.13 python3.12 python3.11 python3 2>/dev/null) python3; do \
	$$p -c '$(FITS)' >/dev/null 2>&1 || continue; \
	$$p -c '$(PLAIN)' && { plain=$${plain:-$$p}; continue; }; \
	echo $$p; exit; done; echo $$plain)
BIN := .venv/bin
TYPED := c360 $(wildcard examples) $(wildcard benchmarks) $(wildcard tests)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-cdc lint types check simulate fuzz chaos soak bench bench-consent bench-rebuild clean lock

help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile

setup: .venv/installed  ## make .venv and install exactly requirements.lock, when either has changed

.venv/installed: pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "c360 needs Python 3.11, 3.12 or 3.13 with venv (Debian: python3 python3-venv); set PYTHON=/path/to/python" >&2; exit 2; }
	@echo "setting up .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock \
	&& $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . \
	|| { echo "set-up failed, pip says why above (it must reach a Python package index)" >&2; exit 1; }
	@$(BIN)/python -m pip check --disable-pip-version-check
	@touch $@

demo: setup  ## a shop's traffic folded into profiles, in memory: no Kafka needed
	@$(BIN)/c360 demo --once

JOBS ?= 2
test: setup  ## all tests, in JOBS (2) processes, each with a real Kafka (C360_TEST_BROKER=host:port uses yours; C360_NO_KAFKA=1 skips what needs one)
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(PYTEST_ARGS)

test-cdc: setup  ## PostgreSQL, MariaDB, Kafka Connect with Debezium, a worker: are profiles what SQL says? (needs Java, Maven; databases from apt)
	@$(BIN)/python -m pytest -m cdc tests/cdc --durations=8 $(PYTEST_ARGS)

lint: setup  ## ruff
	@$(BIN)/ruff check .

types: setup  ## mypy --strict
	@$(BIN)/mypy $(TYPED)

check: lint types test  ## what CI runs

RUNS ?= 1000
simulate: setup  ## identity and moving profiles in RUNS (1000) random histories; ends with "runs N divergences 0" (FROM=first seed)
	@$(BIN)/python -m tests.simulate --runs $(RUNS) $(if $(FROM),--from $(FROM))

fuzz: setup  ## RUNS (20,000) mutated records of all formats through govern; ends with what became of them, as JSON (FUZZ_ARGS="--help" for more)
	@$(BIN)/python -m tests.fuzz $(if $(filter command line environment,$(origin RUNS)),--runs $(RUNS)) $(FUZZ_ARGS)

SECONDS ?= 300
chaos: setup  ## workers, brokers and network of a real Kafka fail for SECONDS (300), from a SEED; a table (CHAOS_ARGS="--help" for more)
	@$(BIN)/python -m tests.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)

soak: setup  ## a worker under traffic for SECONDS (3600 if not given): does memory, or anything else, grow?
	@$(BIN)/python -m benchmarks.soak $(if $(filter command line environment,$(origin SECONDS)),--seconds $(SECONDS)) $(SOAK_ARGS)

bench: setup  ## c360 beside Kafka Streams and the null limit, checked: a table (BENCH_ARGS="--help" for more)
	@$(BIN)/python -m benchmarks.run $(BENCH_ARGS)

bench-consent: setup  ## how soon nothing leaves after a withdrawal, with a million changes waiting (BENCH_ARGS="--help" for more)
	@$(BIN)/python -m benchmarks.consent --json $(BENCH_ARGS)

bench-rebuild: setup  ## how fast a version is built, and what live readers feel of it: JSON (BENCH_ARGS="--help" for more)
	@$(BIN)/python -m benchmarks.rebuild $(BENCH_ARGS)

lock: setup  ## renew requirements.lock from pyproject.toml (review the difference, then make setup)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --extra dev --extra protobuf --no-header --no-annotate \
		--output-file requirements.lock pyproject.toml

clean:  ## remove .venv, caches and builds (jars of the development Kafka stay in ~/.cache/c360)
	@rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	@find c360 tests -name __pycache__ -type d -prune -exec rm -rf {} +
