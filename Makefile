# Two commands set everything up on a fresh machine that has Python and make:
#   make demo   the main job
#   make test   lint, types and the test suite
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: demo test install clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

# The environment may be shared between clones (CI keeps it): point it at this one.
install: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .

demo: install
	$(BIN)/python -m eval.detect --derain $(ARGS)

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
