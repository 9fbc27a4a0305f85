# Needs python3 (3.11 or newer) and make, nothing else. Everything is installed into $(VENV) from hashed locks.
#
#   make demo         a real Kafka, the exchange simulator, the bridge and a consumer; DEMO_SECONDS=30 ends by itself,
#                     LIVE=1 reads Binance instead of the simulator, DEMO_ARGS go to `binance-bridge demo`
#   make test         all tests but the slow ones of the three below; PYTEST_ARGS go to pytest
#   make test-faults  the fault suite: bridges, brokers and the exchange break, and an oracle asks for every event
#   make test-outages the slow tests of single parts while something breaks: publishers, spool, shards, accounts
#   make test-benchmarks  the benchmark commands from beginning to end, with so little to do that their figures mean nothing
#   make soak         the fault suite's ground-truth run for SOAK_SECONDS (half an hour)
#   make soak-faults  the fault suite's rounds with a nemesis, until SOAK_EVENTS events are accounted for and SOAK_KILLS bridges killed
#   make lint         ruff, both the linter and the formatter's check
#   make types        mypy, strict
#   make helm-test    the chart: lint and unit tests
#   make wheel        builds the wheel and tries it in a fresh environment
#   make lock         locks the requirements again, after a change of pyproject.toml
#   make clean        removes what the above made in this folder, the environment included

PYTHON ?= python3
VENV ?= .venv
SOAK_SECONDS ?= 1800
SOAK_EVENTS ?= 10000000
SOAK_KILLS ?= 50
SOAK_RATE ?= 10000
SOAK_ROUND_SECONDS ?= 300
BIN := $(VENV)/bin
PIP_INSTALL := -m pip --disable-pip-version-check install --quiet
COMPILE := pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: demo test test-faults test-outages test-benchmarks soak soak-faults lint types helm-test wheel lock clean

demo: $(VENV)/.stamp-run
	$(BIN)/binance-bridge demo $(DEMO_ARGS)

test: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -m "not faults and not benchmarks" $(PYTEST_ARGS)

test-faults: $(VENV)/.stamp-test
	rm -rf build/faults
	$(BIN)/python -m pytest -m faults tests/faults $(PYTEST_ARGS)
	@cat build/faults/*.md 2> /dev/null || true

test-outages: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -m faults --ignore=tests/faults $(PYTEST_ARGS)

test-benchmarks: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -m benchmarks tests/benchmarks $(PYTEST_ARGS)

soak: $(VENV)/.stamp-test
	BRIDGE_FAULT_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -m faults tests/faults/test_ground_truth.py $(PYTEST_ARGS)

soak-faults: $(VENV)/.stamp-test
	BRIDGE_FAULT_EVENTS=$(SOAK_EVENTS) BRIDGE_FAULT_KILLS=$(SOAK_KILLS) BRIDGE_FAULT_RATE=$(SOAK_RATE) BRIDGE_FAULT_ROUND_SECONDS=$(SOAK_ROUND_SECONDS) \
	$(BIN)/python -m pytest -s -m faults tests/faults/test_crashes.py $(PYTEST_ARGS)

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.stamp-test
	$(BIN)/mypy

helm-test: $(VENV)/.stamp-test
	$(MAKE) -C helm test

wheel: $(VENV)/.stamp-run
	rm -rf build/wheel dist
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python $(PIP_INSTALL) --require-hashes -r requirements/run.txt
	build/wheel/bin/python $(PIP_INSTALL) --no-deps dist/*.whl
	build/wheel/bin/python -I .ci/wheel_smoke.py

lock: $(VENV)/.python
	$(BIN)/python $(PIP_INSTALL) uv
	$(BIN)/uv $(COMPILE) --all-extras pyproject.toml requirements/build.in -o requirements/test.txt
	$(BIN)/uv $(COMPILE) --extra fast --extra librdkafka --extra local -c requirements/test.txt \
		pyproject.toml requirements/build.in -o requirements/run.txt

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The environment: made once, brought up to date when a lock or pyproject.toml changes.

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$($(PYTHON) --version 2>&1): Python 3.11 or newer is needed (make PYTHON=python3.13 …)" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.stamp-run: requirements/run.txt pyproject.toml | $(VENV)/.python
	$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements/run.txt
	$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# test.txt holds all of run.txt, in the same versions.
$(VENV)/.stamp-test: requirements/test.txt pyproject.toml | $(VENV)/.python
	$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements/test.txt
	$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.stamp-run
