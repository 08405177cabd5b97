# Every target does its own set-up. `make help` lists them.
#   PYTHON=…  the interpreter to set up with (default: the newest of 3.11 to 3.13 on the PATH)
#   VENV=…    the virtual environment (default: .venv)
#   WORKERS=… processes that share the tests (default: one for each core)
#   ARGS=…    more arguments for pytest, the demo or the benchmark:  make test ARGS="-k routing -x"

VENV ?= .venv
PY = "$(VENV)/bin/python"
# Seconds for the whole suite; a single test has the limit of pyproject.toml.
TEST_TIMEOUT ?= 1200
# Processes that share the tests: one for each core.
WORKERS ?= auto
BENCHMARK ?= benchmarks/throughput.py
ARGS ?=
export PYTHON VENV

.DEFAULT_GOAL := help
.PHONY: help setup demo example test lint types check format coverage bench wheel clean
.NOTPARALLEL:

help: ## show this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r what does; do printf '%-16s%s\n' "$$what" "$$does"; done

setup: ## make the virtual environment, or bring it up to date
	@scripts/setup-venv

demo: setup ## watch Postroom deliver to real servers through outages and crashes
	@"$(VENV)/bin/postroom" demo $(ARGS)

example: setup ## try the support desk of docs/support-desk.md with a mailbox of its own
	@$(PY) scripts/try_support_desk.py $(ARGS)

test: setup ## run the tests
	@$(PY) -m pytest -n $(WORKERS) --dist worksteal --session-timeout=$(TEST_TIMEOUT) $(ARGS)

lint: setup ## ruff: rules and format
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: setup ## mypy and pyright, both strict
	@$(PY) -m mypy
	@$(PY) -m pyright --pythonpath $(PY)

check: lint types ## lint and types

format: setup ## let ruff mend and format what it can
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

coverage: setup ## run the tests and show what they do not reach
	@$(PY) -m pytest --session-timeout=$(TEST_TIMEOUT) --cov --cov-report=term-missing:skip-covered $(ARGS)

bench: setup ## measure throughput
	@$(PY) $(BENCHMARK) $(ARGS)

wheel: setup ## build the wheel and test it in a clean environment
	@scripts/test-wheel

clean: ## remove the virtual environment and whatever the tools left
	@rm -rf "$(VENV)" build dist .coverage .coverage.* htmlcov .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@rm -rf *.egg-info src/*.egg-info
	@find actors supervision src tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
