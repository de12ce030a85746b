# Every target works from a clean clone: it first makes a virtual environment and installs semcodec into it.
# Needed: Python 3.11 or newer with venv, a C compiler, and the network for the package index.
#
#   make demo        compose, run, encode and decode with the built-in methods and data, then a small bench of all
#   make test        style, types and tests: what has to pass before a commit
#   make check       its quick part: style, types and which room imports which
#   make slow        the tests that take minutes
#   make docs        the documentation as a site in build/site; a broken link is an error
#   make benchmarks  speed of the entropy stages, side by side with what they are built on
#   make clean       remove what was built, the environment included
#
# Another interpreter or place: make test PYTHON=python3.12 VENV=/tmp/semcodec-venv

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CODEC := $(shell sed -n 's/^CODEC = "\(.*\)"$$/\1/p' examples/quickstart.py)

.PHONY: demo test check slow docs benchmarks clean

demo: $(INSTALLED)
	@mkdir -p build
	$(BIN)/python examples/quickstart.py
	$(BIN)/semcodec compose $(CODEC) --input digits-motion:0 --offline
	$(BIN)/semcodec encode $(CODEC) digits-motion:0 -o build/demo.sem --offline
	$(BIN)/semcodec decode build/demo.sem --offline
	$(BIN)/python examples/serve_and_send.py
	rm -rf build/video build/images
	$(BIN)/semcodec bench --data digits-motion --backbone vit-nano --limit 50 --offline -j 2 --out build/video
	$(BIN)/semcodec bench --data digits-scenes --backbone vit-nano-server --entropy rans --limit 100 --offline -j 2 --out build/images
	$(BIN)/semcodec report build/video
	$(BIN)/semcodec report build/images

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/typing && ln -sfn ../../plugins build/typing/semcodec_plugins
	$(BIN)/mypy
	$(BIN)/mypy --config-file docs/results/mypy.ini docs/results/*.py
	$(BIN)/lint-imports --no-cache

test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist worksteal

slow: $(INSTALLED)
	$(BIN)/pytest -m slow --timeout 3600

docs: $(INSTALLED)
	$(BIN)/sphinx-build -q -W --keep-going -c docs -b html . build/site
	@echo "build/site/docs/index.html"

benchmarks: $(INSTALLED)
	$(BIN)/pytest tests/benchmarks --benchmark-enable --benchmark-group-by=group

clean:
	if [ -f $(INSTALLED) ]; then rm -rf $(VENV); fi
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("semcodec needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[test]'
	@touch $@
