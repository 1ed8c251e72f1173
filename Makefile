# Every target sets up .venv by itself, from the pinned versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: venv demo test test-slow bench lint docs clean

venv: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: venv
	$(BIN)/manyfill demo --out demo

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processes of one thread each: the tests' networks are too small to share out.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

test-slow: venv
	$(BIN)/pytest -m slow

# The site, in build/site; any broken link or page that nobody leads to fails. `make test` builds it too.
docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Speed only: how good the fills are, `manyfill evaluate` measures.
bench: venv
	$(BIN)/manyfill benchmark

clean:
	rm -rf $(VENV) demo build *.egg-info
