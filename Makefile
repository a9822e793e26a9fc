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
# Processes that `make test` runs tests in, for two cores: tests wait much. Three of them used 1,000 s of processor
# time in 825 s, of 1,650 that there were. Faults depend on time more, and quick tests never wait.
JOBS ?= 4
TWO := $(if $(filter file,$(origin JOBS)),2,$(JOBS))
# The examples of `make quick`: `tests` is as many as in `make test`. With AFTER=quick, `make test`
# runs those tests alone that `make quick` does not.
QUICK := core and not slow
PROFILE ?= quick
# Images that `make test-images` builds and runs; also: tensorflow torch gpu, which take gigabytes.
TARGETS ?= core xds onnx
AFTER ?=
# The tests start hundreds of processes, and pytest rewrites each test module: compile them once.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
RELEASE := .venv-release
ANSIBLE := .venv-ansible
# `make lock UPGRADE=1` takes the newest versions.
UPGRADE ?=

.PHONY: dist lock test-images lint-ansible
.PHONY: help install demo demo-secure test quick test-faults test-foreign test-browsers test-monitoring test-kubernetes fuzz fuzz-leases check check-types check-more-types docs bench bench-smoke clean

help:
	@echo "make demo         train on handwritten digits, serve them from three workers, stream images"
	@echo "make demo-secure  the same with all security on: an honest caller is served, attackers are refused"
	@echo "make install      make the virtual environment; the other targets do so too where it is missing"
	@echo ""
	@echo "make quick        the tests of decisions and values: no server, no framework; half a minute"
	@echo "make test         all tests but those of faults: real Consul, real workers, real curl;"
	@echo "                  some ten minutes on two cores, in four processes; less with more of both: JOBS=8"
	@echo "make test-faults  kill, stop and restart workers, agents and proxies under load"
	@echo "make test-images  build the images core, xds and onnx, and run them strictly; as root, with buildah, podman and Docker;"
	@echo "                  TARGETS='core xds onnx openvino litert tensorflow torch gpu' builds those, too: 30 GB of disk"
	@echo "make test-browsers  the JavaScript client in Node and in Chromium against real workers, and its types;"
	@echo "                  needs Node.js, npm and Chromium"
	@echo "make test-monitoring  alerts fire and clear by real faults, in a real Prometheus and Alertmanager"
	@echo "make test-machines  machines with systemd and Consul: units, doctor, join, and the Ansible collection:"
	@echo "                  cables pulled, machines killed, upgraded and added under load; as root, a quarter of an hour"
	@echo "make lint-ansible  ansible-lint's strictest profile on deploy/ansible; needs the network for its tools"
	@echo "make test-kubernetes  the registry of Kubernetes against a real API server, and the Helm chart on a whole node, which is"
	@echo "                  built from Debian's source once (some minutes, 430 MB in .cache); as root, some 20 minutes"
	@echo "make check        ruff, mypy --strict, pyright, import contracts"
	@echo "make audit        known vulnerabilities of the installed packages, by pip-audit; needs the network"
	@echo "make docs         the documentation as a site in site/; a dead link fails"
	@echo "make dist         the wheel, the sdist and SBOMs in dist/, checked; needs the network for its tools"
	@echo "make lock         write deploy/docker/requirements/ anew from pyproject.toml; UPGRADE=1 takes newer versions"
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
	@echo "Installing into $(VENV) (one to three minutes, on a slow link longer)..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

install: $(STAMP)

demo: $(STAMP)
	@$(BIN)/fingerpost demo

# With Consul where it can be had; otherwise the registry is the embedded one, and the demo says so.
demo-secure: $(STAMP)
	@consul=$$(deploy/consul/get-consul 2>/dev/null) || echo "No Consul here (deploy/consul/get-consul says why)"; \
	  $(BIN)/fingerpost demo --secure --trained $${consul:+--consul "$$consul"}

test: $(STAMP)
	@$(BIN)/python -m pytest --ignore tests/faults --ignore tests/machines --ignore tests/monitoring --ignore tests/images --ignore tests/kubernetes --ignore tests/foreign --ignore tests/browsers $(if $(AFTER),-m "not ($(QUICK))") -n $(JOBS)

quick: $(STAMP)
	@$(BIN)/python -m pytest -m "$(QUICK)" --hypothesis-profile $(PROFILE) -n $(TWO)

# Ansible's tools stand in an environment of their own, too: Fingerpost does not need them.
$(ANSIBLE)/.installed: deploy/ansible/tools.txt
	@$(PYTHON) -m venv $(ANSIBLE)
	@$(ANSIBLE)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

lint-ansible: $(ANSIBLE)/.installed
	@cd deploy/ansible && PATH="$(CURDIR)/$(ANSIBLE)/bin:$$PATH" ansible-lint --offline

test-machines: $(STAMP) $(ANSIBLE)/.installed
	@$(BIN)/python -m pytest tests/machines -s -x

test-faults: $(STAMP)
	@$(BIN)/python -m pytest $(FAULTS) -n $(TWO)

test-images: $(STAMP)
	@TARGETS="$(TARGETS)" $(BIN)/python -m pytest tests/images

# Servers of others, each in an environment of its own: 4 GB, kept in .cache/foreign.
test-foreign: $(STAMP)
	@$(BIN)/python -m pytest tests/foreign -s

# Chromium from Debian, Node.js with npm.
test-browsers: $(STAMP)
	@$(BIN)/python -m pytest tests/browsers

test-monitoring: $(STAMP)
	@$(BIN)/python -m pytest tests/monitoring -s

test-kubernetes: $(STAMP)
	@tests/support/get-kubernetes node >/dev/null
	@$(BIN)/python -m pytest tests/registry/kubernetes tests/kubernetes --kubernetes real -s

# The two type checkers take a minute each on one core.
check: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory -j 2 check-types check-more-types
	@$(BIN)/lint-imports

check-types: $(STAMP)
	@$(BIN)/mypy

check-more-types: $(STAMP)
	@$(BIN)/basedpyright --pythonpath $(BIN)/python

audit: $(STAMP)
	@$(BIN)/python .ci/audit --python $(BIN)/python

docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "site/index.html"

# Tools of releases stand in an environment of their own, with the versions and hashes that are locked.
$(RELEASE)/.installed: deploy/release/tools.txt
	@$(PYTHON) -m venv $(RELEASE)
	@$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

dist: $(RELEASE)/.installed
	@deploy/release/dist $(RELEASE)/bin/python dist

lock: $(RELEASE)/.installed
	@$(RELEASE)/bin/python deploy/release/lock --uv $(RELEASE)/bin/uv $(if $(UPGRADE),--upgrade)

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
