# make demo, make test and the like: each makes the environment that it needs, once.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PACKAGE := setup.py constraints.txt lut_tf/__init__.py
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
SCRIPTS := train_lut.py $(wildcard export/*.py benchmarks/*.py)

.PHONY: help demo test test-fast test-all lint format clean

help:
	@echo "make demo       pre-train on the digits, probe, draw (about 4 minutes after installation)"
	@echo "make test       the normal tests"
	@echo "make test-fast  those that take seconds"
	@echo "make test-all   the slow ones too"
	@echo "make lint       ruff and mypy"
	@echo "make format     rewrite the sources as ruff would have them"
	@echo "make clean      remove the environment and caches; runs/ stays"

demo: $(VENV)/.installed
	$(BIN)/python train_lut.py --config configs/digits.yaml
	$(BIN)/lut-tf export runs/digits --to saved_model,onnx

test: $(VENV)/.installed-dev
	$(PYTEST)

test-fast: $(VENV)/.installed-dev
	$(PYTEST) -m "not medium and not slow"

test-all: $(VENV)/.installed-dev
	$(PYTEST) -m ""

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy lut_tf $(SCRIPTS)

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A half-made environment (Debian's python3 without python3-venv leaves one) must not pass for a whole one: the stamps
# are written last.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "$(PYTHON) is missing or not Python 3.11, 3.12 or 3.13: install one and say which, make PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make environments: on Debian and Ubuntu, sudo apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created $(PACKAGE)
	@echo "installing the tested set into $(VENV) (TensorFlow is large: a few minutes)"
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@
