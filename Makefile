# Two commands set everything up on a fresh machine that has Python and make:
#   make demo   the main job
#   make test   lint, types and the test suite (make test-all: also the tests marked slow;
#               make test-isa: the numerical tests with other instruction sets and threads;
#               make fuzz: tests/fuzz with thousands of examples;
#               make docs: the site, into build/site)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
# setuptools warns that an editable installation is one.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: demo test test-all test-isa fuzz docs install clean

$(VENV)/installed: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip "setuptools>=77"
	$(PIP) --editable ".[dev]"
	touch $@

# The environment may be shared between clones (CI keeps it): point it at this one.
install: $(VENV)/installed
	$(PIP) --no-deps --no-build-isolation --editable .

demo: install
	$(BIN)/python -m eval.detect --derain gate:rainmer-s rainmer-s $(ARGS)

# The types are checked beside the tests: both run to the end, and either may fail.
test: docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy & types=$$!; $(PYTEST) $(ARGS); tests=$$?; wait $$types && exit $$tests

test-all: ARGS += -m ""
test-all: test

test-isa: install
	$(BIN)/python -m tests.isa $(ARGS)

fuzz: install
	$(BIN)/python -m pytest -n auto --hypothesis-profile=fuzz tests/fuzz $(ARGS)

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
