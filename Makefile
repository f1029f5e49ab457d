# Every target sets up what it needs first; once that is done, it costs a checksum.
.DEFAULT_GOAL := help
.PHONY: help set-up run test check lint types lock clean

help:
	@printf '%s\n' \
	  'make run      set up, then take the flights example through the whole pipeline' \
	  'make test     set up, then run the tests' \
	  'make check    set up, then lint, types and tests' \
	  'make set-up   only make .venv ready' \
	  'make test PYTEST="-n 0 -k words"   the same with options of pytest' \
	  'make lock     pin requirements*.in anew (make lock UPGRADE=--upgrade for the latest)' \
	  'make clean    remove what set-up and the checks made; /output stays'

set-up:
	@scripts/set_up

run: set-up
	.venv/bin/headworks run examples/flights/pipeline.yaml

test: set-up
	.venv/bin/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(PYTEST)

lint: set-up
	.venv/bin/ruff check
	.venv/bin/ruff format --check

types: set-up
	.venv/bin/mypy

check: lint types test

lock: set-up
	@scripts/lock $(UPGRADE)

clean:
	rm -rf .venv .tools build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
