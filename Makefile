# Two commands on a machine with Python 3.11–3.13, make and a package index: `make course` and `make test`.
.DEFAULT_GOAL := help
.PHONY: help course test lab notebooks figures links lock clean

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUN := runs/synthetic

help:
	@echo "make course     install into .venv and run all lessons on the embedded data"
	@echo "make test       unit tests, notebook form, and every lesson's outputs compared"
	@echo "make lab        open the lessons in JupyterLab"
	@echo "make notebooks  run the lessons anew and keep their outputs in notebooks/"
	@echo "make figures    run the course and copy its figures into figures/"
	@echo "make links      write the repository's address from pyproject.toml into badges and pages"
	@echo "make lock       choose newer versions into requirements.lock and environment.yml"
	@echo "make clean      remove .venv, runs/ and caches"

course: $(INSTALLED)
	$(BIN)/skinlib run --out $(RUN)

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/links.py --check
	$(BIN)/python -m pytest --nbval --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout 600

lab: $(INSTALLED)
	$(BIN)/jupyter lab --notebook-dir notebooks

notebooks: $(INSTALLED)
	$(BIN)/python tools/notebooks.py

figures: course
	$(BIN)/python tools/figures.py $(RUN)

links: $(INSTALLED)
	$(BIN)/python tools/links.py

# uv resolves for all systems and Python versions at once; no address of an index is written.
lock: $(INSTALLED)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra test --upgrade --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet --output-file requirements.lock
	$(BIN)/python tools/environment.py

clean:
	rm -rf $(VENV) runs data/cache build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# pip is enough; uv, where it is installed, does the same faster. The stamp is written last, so that an interrupted
# installation starts again and a complete one is left alone.
$(INSTALLED): requirements.lock pyproject.toml
	@python=; for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	    $$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	    && python=$$candidate && break; done; \
	test -n "$$python" || { echo "This course needs Python 3.11, 3.12 or 3.13, and found none of them: install one," \
	    "or name it: make course PYTHON=/path/to/python3.12" >&2; exit 1; }; \
	rm -f $@; \
	if command -v uv >/dev/null 2>&1; then \
	    uv venv --quiet --clear --seed --python "$$($$python -c 'import sys; print(sys.executable)')" $(VENV) && \
	    uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock && \
	    uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .; \
	else \
	    $$python -m venv --clear $(VENV) && \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock && \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	fi && touch $@
