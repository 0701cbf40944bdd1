# make demo      align the embedded emoji model and show before/after images
# make test      lint, types and tests
# make test-all  the slow tests too
# make docs      the documentation as a site, in build/site
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := runs/emoji-glossy

.PHONY: demo test test-all docs lint tests-quick tests-all install clean
.NOTPARALLEL:

demo: install
	$(BIN)/sdo align pipelines/configs/emoji.yaml
	@echo; echo "Look at $(RUN)/before_after.png. To run it again: rm -r $(RUN) && make demo"

test: lint tests-quick

test-all: lint tests-all

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build  # the theme's authors announce its successor

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

tests-quick: install
	$(BIN)/pytest -m "not slow"

tests-all: install
	$(BIN)/pytest --cov --cov-report=term:skip-covered

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "Making the virtual environment $(VENV) with the tested versions; some minutes, once."
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	$(BIN)/sdo doctor
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
