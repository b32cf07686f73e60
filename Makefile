# Everything runs from a virtual environment in .venv; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Public data, where it lies beside the checkout; tests that need it skip without.
ifneq ($(wildcard ../shared/data),)
export ALLOCGYM_DATA ?= $(abspath ../shared/data)
endif
# Two training processes at once, one thread each.
export OMP_NUM_THREADS ?= 1

SEEDS := $(if $(DEMO_FULL),10,3)
# Where the demo's runs go: local processes, or `ray`: a cluster of four nodes on this machine.
ENGINE ?= local

.PHONY: install install-ray demo test test-newest test-chaos fuzz test-many test-live test-ray lint types clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[learn,real,plots,solvers,linux,dev]'
	touch $(STAMP)

install-ray: install
	$(BIN)/python -c "import ray" 2>/dev/null || $(BIN)/pip install --quiet -c constraints.txt -e '.[ray]'
	# Its schedulers alone: they import none of the half a gigabyte it would bring.
	$(BIN)/python -c "import syne_tune" 2>/dev/null || $(BIN)/pip install --quiet --no-deps -c constraints.txt syne-tune

demo: install $(if $(filter ray,$(ENGINE)),install-ray)
	$(BIN)/allocgym demo --out runs/demo --seeds $(SEEDS) --engine $(ENGINE)

test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not ray and not live and not chaos and not fuzz"

# The contract tests against the newest Gymnasium there is (the pinned one is Ray's).
test-newest: install
	$(BIN)/pip install --quiet --upgrade --no-deps --target .newest gymnasium
	PYTHONPATH=.newest $(BIN)/python -m pytest -n 2 tests/contract/test_environment.py

# Runs killed, torn, robbed and overfilled on purpose, and hostile input; counts by kind at the end.
test-chaos: install
	$(BIN)/python -m pytest -m "chaos or fuzz"

# Ten thousand hostile inputs of each kind, within a gigabyte and five seconds each (about an hour).
fuzz: install
	ALLOCGYM_FUZZ=10000 $(BIN)/python -m pytest -m fuzz --timeout 0

# A thousand controllers of a thousand periods, and one of a hundred thousand: memory and seconds.
test-many: install
	ulimit -n 4096 && $(BIN)/python -m allocgym.benchmarks.core.many

# The radio data plane in this kernel: real packets against the clock, so not beside other work.
test-live: install
	$(BIN)/python -m pytest -m live

# Training, cells and live runs on a local cluster that loses nodes.
test-ray: install-ray
	timeout 2400 $(BIN)/python -m pytest -m ray --timeout 900

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	rm -rf build .typecheck
	$(BIN)/pip install --quiet --no-deps --target .typecheck .
	$(BIN)/mypy .typecheck/allocgym
	rm -rf build .typecheck

clean:
	rm -rf $(VENV) build .typecheck *.egg-info
