# `make` says what there is. Each target makes its own environment in .venv on a fresh machine.
# The tests need real servers; what is missing is named, with the one line that installs it.

VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
PYTHON  ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
             $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PYTEST  ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench wheel servers clean

help:
	@echo "make demo    an API, a free-tier key, traffic, 429s and records, on this machine, in seconds"
	@echo "make test    every test, against a real Redis and a real Kafka     (PYTEST='-k name' to choose)"
	@echo "make check   ruff, mypy and the direction of imports"
	@echo "make format  let ruff write what it can"
	@echo "make bench   side by side with what people would use instead, and as things grow: about an hour"
	@echo "make wheel   a wheel of this machine's kind with the data path compiled, in dist/    (needs a C compiler)"

# The stamp is newer than pyproject.toml exactly when the environment holds what it asks for.
$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "sidecar needs Python 3.11 or newer, and none is on the PATH" \
	    "(Debian and Ubuntu: apt-get install -y python3 python3-venv)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module" \
	    "(Debian and Ubuntu: apt-get install -y python3-venv)" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
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

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python -m benchmarks --write

wheel: $(STAMP)
	SIDECAR_COMPILE=1 $(BIN)/python -m pip wheel --disable-pip-version-check --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
