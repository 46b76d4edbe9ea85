# Each target installs what it needs into .venv first, and does nothing twice.
.PHONY: quickstart test check lint bench long services clean

PYTEST := .venv/bin/python -m pytest
# three files at a time: whole runs spend most of their time starting processes one after the other
SIDE_BY_SIDE := --numprocesses 3 --dist loadfile --no-loadscope-reorder

quickstart: ## train a small policy on this machine in three rounds, and write its report
	@.ci/install cpu
	@.venv/bin/ratchet run quickstart

test: ## the whole suite; tests of servers that are not installed (make services) are skipped
	@.ci/install cpu dev bench
	@$(PYTEST) --timeout 900 $(SIDE_BY_SIDE)

check: lint ## static checks and the quick tests, under two minutes
	@$(PYTEST) --quiet --timeout 120 $(SIDE_BY_SIDE) -m "not engine and not slow and not s3 and not gpu"

lint: ## static checks alone
	@.ci/install cpu dev bench
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/pyright --warnings
	@.venv/bin/lint-imports --no-logo

bench: ## speed beside the peers
	@.ci/install cpu dev bench
	@$(PYTEST) -o python_files='bench_*.py' --capture no --quiet tests/benchmarks

long: ## every fault at every side effect, whole runs that are killed on a real S3 server, and more whole runs: an hour
	@.ci/install cpu dev bench
	@$(PYTEST) -o python_files='long_*.py' --capture no --quiet tests/chaos tests/flows

services: ## S3 gateway, PostgreSQL, browser and docker-compose for the tests (Debian, root)
	@.ci/services

clean: ## what was made here, except runs
	rm -rf .venv .ratchet .pytest_cache .ruff_cache .hypothesis .import_linter_cache build ./*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
