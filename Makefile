# Everything a newcomer needs: `make demo` runs the main job, `make test` the tests.
# `make TARGET PYTHON=python3.12` uses another Python. An environment of another version stays as it
# is: this one's is beside it, .venv-3.12. Without PYTHON, .venv is used whatever it was made with.
VENV := .venv
ifneq ($(origin PYTHON),undefined)
  VENV := $(shell \
    version='import sys; print("%d.%d" % sys.version_info[:2])'; \
    wanted=$$($(PYTHON) -c "$$version" 2>/dev/null) || wanted=none; \
    if [ -x .venv/bin/python ] && [ "$$(.venv/bin/python -c "$$version")" != "$$wanted" ]; \
    then echo ".venv-$$wanted"; else echo .venv; fi)
endif
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
FAULTS ?= tests/faults
# Processes that `make test` and `make quick` run tests in.
JOBS ?= 2
# The tests start hundreds of processes, and pytest rewrites each test module: compile them once.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test quick test-faults fuzz fuzz-leases check docs bench bench-smoke clean

help:
	@echo "make demo         train on handwritten digits, serve them from three workers, stream images"
	@echo "make install      make the virtual environment; the other targets do so too where it is missing"
	@echo ""
	@echo "make quick        the tests of decisions and values: no server, no framework; half a minute"
	@echo "make test         all tests but those of faults: real Consul, real workers, real curl;"
	@echo "                  some twenty minutes in two processes, less with more cores: JOBS=4"
	@echo "make test-faults  kill, stop and restart workers, agents and proxies under load"
	@echo "make check        ruff, mypy --strict, pyright, import contracts"
	@echo "make audit        known vulnerabilities of the installed packages, by pip-audit; needs the network"
	@echo "make docs         the documentation as a site in site/; a dead link fails"
	@echo "make fuzz         hostile requests to every endpoint of a worker, and hostile answers of peers, for six minutes;"
	@echo "                  bounds processor time, memory and the pauses of the event loop"
	@echo "make fuzz-leases  a million changed leases, of which none may be accepted"
	@echo ""
	@echo "make bench        measure every claim of docs/benchmarks.md, and write it anew (an hour; as root)"
	@echo "make bench-NAME   one of them: bandwidth, client, worker, lookups, ..."
	@echo "make bench-smoke  short versions of some, in a few minutes"
	@echo "make clean        remove the virtual environments, caches and the demo's files"
	@echo ""
	@echo "PYTHON=python3.12 uses another Python, in an environment of its own where .venv is of another one"

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Fingerpost needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into $(VENV) (about a minute)..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

install: $(STAMP)

demo: $(STAMP)
	@$(BIN)/fingerpost demo

test: $(STAMP)
	@$(BIN)/python -m pytest --ignore tests/faults -n $(JOBS)

quick: $(STAMP)
	@$(BIN)/python -m pytest -m "core and not slow" --hypothesis-profile quick -n $(JOBS)

test-faults: $(STAMP)
	@$(BIN)/python -m pytest $(FAULTS) -s

check: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/basedpyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports

audit: $(STAMP)
	@$(BIN)/python .ci/audit --python $(BIN)/python

docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "site/index.html"

fuzz: $(STAMP)
	@$(BIN)/python -m tests.worker.protocols.fuzz --seconds 300
	@$(BIN)/python -m tests.client.fuzz_peers --seconds 60

fuzz-leases: $(STAMP)
	@FINGERPOST_MUTATIONS=1000000 $(BIN)/python -m pytest -q --timeout 3600 -o faulthandler_timeout=0 tests/security/leases/test_verifier.py -k mutated

bench: $(STAMP)
	@$(BIN)/python -m benchmarks

bench-smoke: $(STAMP)
	@$(BIN)/python -m benchmarks --smoke

bench-%: $(STAMP)
	@$(BIN)/python -m benchmarks $*

clean:
	rm -rf .venv .venv-* site .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist models/digits data/digits
	-rmdir models data 2>/dev/null || true
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
