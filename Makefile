# Each target sets itself up: the first run builds fastcam in .venv, later ones start at once.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := pyproject.toml CMakeLists.txt $(wildcard csrc/*.* csrc/*/*.*)

.PHONY: demo test lint bench clean

demo: .venv/.demo
	$(BIN)/fastcam demo

test: .venv/.test
	$(BIN)/python -m pytest

lint: .venv/.dev .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/clang-format --dry-run -Werror $(wildcard csrc/*.* csrc/*/*.*)

bench: .venv/.bench
	$(BIN)/python -m bench

# One stamp per extra. A plain install of the working tree, editable: Python files need no second one.
.venv/.%: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv .venv

clean:
	rm -rf build dist .venv
