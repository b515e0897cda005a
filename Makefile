# Everything a developer does, from nothing but Debian with Python 3.11 or newer.
# A virtual environment is built in .venv on first use; nothing is installed outside it,
# except Debian's python3-venv where it is missing and you are root (scripts/make_venv says so).

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
ARGS ?=
SEEDS ?= 200
MINUTES ?= 30

bin := $(VENV)/bin
pip := $(bin)/python -m pip install --quiet --disable-pip-version-check
kernels := $(wildcard src/unimeter/engine/*.pxd src/unimeter/engine/*.py)

.DEFAULT_GOAL := help
.PHONY: help build demo cluster-demo run test test-interpreted test-web check format bench bench-cluster
.PHONY: sim sweep sim-engine planted jepsen clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: $(VENV)/.kernels ## build the kernels and install into .venv

demo: $(VENV)/.kernels ## meter 200,000 events through a kill -9 and compare every total
	@$(bin)/python -m unimeter.demo $(ARGS)

cluster-demo: $(VENV)/.kernels ## meter through kills and pauses of three nodes, compare totals and states
	@$(bin)/python -m unimeter.demo.cluster $(ARGS)

run: $(VENV)/.kernels ## start a node on ./unimeter-data
	@$(bin)/unimeter serve $(ARGS)

test: $(VENV)/.installed-dev test-interpreted ## run the tests but test-web: a part interpreted, then all compiled
	$(bin)/python -m pytest -n $(WORKERS) --ignore=tests/web $(ARGS)

test-interpreted: $(VENV)/.installed-dev ## run engine and wire tests with the kernels interpreted
	UNIMETER_PURE=1 $(bin)/python -m pytest -n $(WORKERS) $(wildcard tests/engine tests/wire)

test-web: $(VENV)/.installed-dev ## the dashboard in headless Chromium (Debian: chromium, chromium-driver)
	@scripts/get_chromium
	$(bin)/python -m pytest tests/web $(ARGS)

check: $(VENV)/.installed-dev ## format, lint, types, layers, docs
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy
	$(bin)/python -m pytest -q tests/test_layers.py tests/test_docs.py

format: $(VENV)/.installed-dev ## rewrite the source in the house format
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

bench: $(VENV)/.kernels ## measure speed and size; figures printed and written to bench-results/
	$(bin)/unimeter bench $(ARGS)

bench-cluster: $(VENV)/.kernels ## measure three nodes on this machine
	$(bin)/python -m unimeter.bench.cluster $(ARGS)

sim: $(VENV)/.kernels ## simulate whole clusters under faults: SEEDS=200 fresh ones, or ARGS
	@$(bin)/unimeter simulate $(or $(ARGS),--seeds $(SEEDS) --jobs $(WORKERS))

sweep: $(VENV)/.kernels ## the same with new seeds for MINUTES=30
	@$(bin)/unimeter simulate --minutes $(MINUTES) --jobs $(WORKERS) $(ARGS)

sim-engine: $(VENV)/.installed-dev ## the engine against an independent meter, with fresh inputs every time
	HYPOTHESIS_PROFILE=fresh $(bin)/python -m pytest -n $(WORKERS) -p no:cacheprovider \
		$(wildcard tests/engine tests/wire) $(ARGS)

planted: $(VENV)/.installed-dev ## plant known bugs one by one; each must be found (ARGS=--search: anew)
	$(bin)/python -m tests.planted --jobs $(WORKERS) $(ARGS)

jepsen: $(VENV)/.installed-dev ## real clusters under kills, pauses and partitions, judged by checkers
	$(bin)/python -m tests.jepsen $(ARGS)

clean: ## remove what was built
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src -name '*.so' -delete

$(VENV)/.created: scripts/make_venv
	@scripts/make_venv $(PYTHON) $(VENV)
	@touch $@

# The package is installed without compiling, because pip would compile every kernel again each
# time; build_ext compiles in place, and only those that changed.
$(VENV)/.installed: $(VENV)/.created pyproject.toml setup.py
	@echo "installing into $(VENV) ..."
	@$(pip) 'setuptools>=77' 'Cython>=3.1' wheel
	@UNIMETER_NO_COMPILE=1 $(pip) --no-build-isolation --editable '.[server]'
	@touch $@

$(VENV)/.kernels: $(VENV)/.installed $(kernels)
	@echo "compiling the kernels ..."
	@$(bin)/python setup.py --quiet build_ext --inplace
	@$(bin)/python -c "from unimeter.engine import COMPILED; \
		print('kernels:', 'compiled' if COMPILED else 'interpreted (slower)')"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml | $(VENV)/.kernels
	@echo "installing what the tests need into $(VENV) ..."
	@UNIMETER_NO_COMPILE=1 $(pip) --no-build-isolation --editable '.[dev]'
	@touch $@
