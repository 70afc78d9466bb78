# `make` says what there is. Each target makes its own environment in .venv on a fresh machine.
# The tests need real servers; what is missing is named, with the one line that installs it.

VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
PYTHON  ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
             $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PIP     := $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTEST  ?=

# What renews the lock files; it resolves for all versions of Python and all platforms at once.
LOCK      := .cache/lock
UV        := uv==0.13.9
COMPILE   := $(LOCK)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
             --no-annotate --no-emit-index-url --no-emit-find-links \
             --custom-compile-command 'make lock'

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench wheel lock servers clean

help:
	@echo "make demo    an API, a free-tier key, traffic, 429s and records, on this machine, in seconds"
	@echo "make test    every test, against a real Redis and a real Kafka     (PYTEST='-k name' to choose)"
	@echo "make check   ruff, mypy, the direction of imports, and the words of names and prose"
	@echo "make format  let ruff write what it can"
	@echo "make bench   side by side with what people would use instead, and as things grow: about an hour"
	@echo "make lock    pin the newest versions that pyproject.toml allows, with hashes, in requirements/"
	@echo "make wheel   a wheel of this machine's kind with the data path compiled, in dist/    (needs a C compiler)"

# The stamp is newer than the lock file and pyproject.toml exactly when the environment holds what they ask for.
$(STAMP): pyproject.toml requirements/dev.txt
	@test -n "$(PYTHON)" || { echo "sidecar needs Python 3.11 or newer, and none is on the PATH" \
	    "(Debian and Ubuntu: apt-get install -y python3 python3-venv)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module" \
	    "(Debian and Ubuntu: apt-get install -y python3-venv)" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements/dev.txt
	$(PIP) install --no-deps --no-index --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)
	@$(BIN)/sidecar demo

servers:
	@./.ci/servers --missing

test: $(STAMP) servers
	$(BIN)/python -m pytest $(PYTEST)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.words

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python -m benchmarks --write

# dev.txt first: the others are held to its versions.
lock:
	test -x $(LOCK)/bin/uv || $(PYTHON) -m venv $(LOCK)
	$(LOCK)/bin/python -m pip --quiet --disable-pip-version-check install '$(UV)'
	$(COMPILE) pyproject.toml --group pyproject.toml:dev --output-file requirements/dev.txt
	$(COMPILE) pyproject.toml --constraint requirements/dev.txt --output-file requirements/run.txt
	$(COMPILE) --group pyproject.toml:build --constraint requirements/dev.txt --output-file requirements/build.txt

wheel: $(STAMP)
	SIDECAR_COMPILE=1 $(PIP) wheel --no-deps --no-index --no-build-isolation --wheel-dir dist .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
