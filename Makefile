# `make demo` and `make test` need Python 3.11 or newer and nothing else: the
# environment is made in .venv on demand, with the versions of
# requirements.lock. `make PYTHON=python3.12 demo` picks another Python.

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
  $(VENV)/bin/python -m pip install -qq -c requirements.lock
INPUTS := pyproject.toml requirements.lock jaxnmc/_version.py

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean

help:
	@echo 'make demo   a story from integers on simulated Loihi 2 cores'
	@echo 'make test   the tests (without those marked slow)'
	@echo 'make lint   ruff and mypy'
	@echo 'make bench  speed of kernels and whole models'
	@echo 'make clean  removes .venv, caches and build outputs'

demo: $(VENV)/.core
	@$(VENV)/bin/python -m jaxnmc demo

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -n 2

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(VENV)/.core
	$(VENV)/bin/python tools/bench.py --shape 370M

clean:
	rm -rf $(VENV) .pytest_cache .hypothesis .mypy_cache .ruff_cache \
	  .coverage htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written only after its step succeeded, so that a broken download
# is taken up again by the next make.
$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { \
	  echo 'There is no $(PYTHON) here; jaxnmc needs Python 3.11 or newer.'; \
	  echo 'Say which one to use: make PYTHON=/path/to/python3.12 demo'; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'jaxnmc needs Python 3.11 or newer, but $(PYTHON) is' \
	    "$$($(PYTHON) --version 2>&1)."; \
	  echo 'Say which one to use: make PYTHON=/path/to/python3.12 demo'; \
	  exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo '"$(PYTHON) -m venv" failed (on Debian and Ubuntu: apt install' \
	    'python3-venv).'; exit 1; }
	@touch $@

$(VENV)/.core: $(VENV)/.made $(INPUTS)
	@echo 'Installing jaxnmc and its packages into $(VENV): a minute or two.'
	@$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.made $(INPUTS)
	@echo 'Installing jaxnmc and what its tests need into $(VENV).'
	@$(PIP) -e '.[test]'
	@touch $(VENV)/.core $@

$(VENV)/.dev: $(VENV)/.made $(INPUTS)
	@echo 'Installing jaxnmc and its development tools into $(VENV).'
	@$(PIP) -e '.[dev]'
	@touch $(VENV)/.core $(VENV)/.test $@
