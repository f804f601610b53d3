# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NEWEST := .venv-newest
NEWEST_PYTHON ?= $(PYTHON)
INSTALLED := $(VENV)/.installed
# Every worker starts a PostgreSQL and a Prefect server of its own.
PARALLEL := --numprocesses auto --maxprocesses 4

# Weights, golden vectors and recordings that are not part of the project, where they are there.
ifneq ($(wildcard ../shared/assets),)
export AUDIOSET_ASSETS ?= $(abspath ../shared/assets)
endif

.PHONY: demo test test-slow test-numeric test-newest check lint types audit format bench fuzz formats postgresql ffmpeg chromium strace hosts clean help

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(INSTALLED)  ## label a small set of sounds (yours: DEMO_AUDIO=folder) and print what was heard
	$(BIN)/audioset demo $(DEMO_AUDIO) --home demo-data

test: $(INSTALLED) postgresql  ## the fast tests
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow" $(PYTEST_ARGS)

test-slow: $(INSTALLED) postgresql chromium ffmpeg strace hosts  ## the slow tests
	$(BIN)/python -m pytest -m slow --numprocesses auto --maxprocesses 2 --dist loadfile $(PYTEST_ARGS)

test-numeric: $(INSTALLED)  ## the numeric tests under several instruction sets, and without assets
	$(BIN)/python -m tests.numeric $(NUMERIC_ARGS)

test-newest: postgresql  ## the fast tests beside the newest releases (NEWEST_PYTHON=python3.13); gigabytes
	$(NEWEST_PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade prefect
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r <($(NEWEST_PYTHON) .ci/newest.py)
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	$(NEWEST)/bin/python -m pytest $(PARALLEL) -m "not slow" $(PYTEST_ARGS)

check: lint types test  ## what a change must pass

lint: $(INSTALLED)  ## style and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache

types: $(INSTALLED)  ## static types, strict
	$(BIN)/mypy

audit: $(INSTALLED)  ## known vulnerabilities of the pinned versions (lint has bandit's checks)
	$(BIN)/python .ci/audit.py $(BIN)/pip-audit

format: $(INSTALLED)  ## put the code in shape
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .

bench: $(INSTALLED)  ## speed and memory against other ways and this machine's bound (BENCH_ARGS=--full)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks $(BENCH_ARGS)
	$(BIN)/python -m benchmarks.models --minutes 2 pocket yamnet vggish panns mn04 mn10 dymn04 ced_tiny frame_mn06
	$(BIN)/python -m benchmarks.several_models yamnet mn04 mn10 frame_mn10

fuzz: $(INSTALLED)  ## read spoilt files for 10 minutes (FUZZ_ARGS="--minutes 60 --seed 7 --target sound")
	$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

formats: $(INSTALLED) ffmpeg  ## try every kind of recording in every plight; the tables of docs/formats.md
	$(BIN)/python -m tests.formats

# What tests need of the system is installed where that is possible without asking; without it they
# are skipped with a reason. $(call needed,command that finds the program,Debian's package,what is lost)
needed = @{ $(1); } >/dev/null 2>&1 \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && echo "installing Debian's $(2) for the tests" \
	       && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(2) >/dev/null; } \
	  || echo "$(3) will be skipped: no $(2) here (install Debian's $(2))"

postgresql:
	$(call needed,command -v initdb || ls /usr/lib/postgresql/*/bin/initdb,postgresql,tests of PostgreSQL)

chromium:
	$(call needed,command -v chromium,chromium,tests of pages in a browser)

strace:
	$(call needed,command -v strace,strace,tests of what leaves the machine)

hosts:
	$(call needed,command -v ip,iproute2,tests of hosts that are lost)

ffmpeg:
	$(call needed,command -v ffmpeg,ffmpeg,comparisons of formats with FFmpeg)

clean:  ## remove what was made
	rm -rf $(VENV) $(NEWEST) demo-data .mypy_cache .pytest_cache .ruff_cache .hypothesis
