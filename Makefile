# make demo   see it work: a broker, devices, and the resulting tables
# make quick  a first answer in about a minute: everything that needs no server, tries no fault and is not slow
# make test   the whole test suite, with all checks
# make docs   the documentation as a website, in build/docs; a link within it that leads nowhere is an error
# make links  whether the addresses of other sites in the documentation still answer: needs the network
# Each creates the virtual environment .venv first.  PYTHON names an interpreter other than python3.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo quick test docs links clean

demo: $(VENV)/.installed
	$(BIN)/amqtt-db demo

quick: $(VENV)/.installed-test
	$(BIN)/ruff check --quiet
	$(BIN)/pytest --quiet --numprocesses 2 --dist loadscope --hypothesis-profile quick -m "not server and not slow and not fault"

test: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses 4 --dist loadscope

docs: $(VENV)/.installed-test
	$(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning docs build/docs

links: $(VENV)/.installed-test
	$(BIN)/sphinx-build --quiet -b linkcheck docs build/links

clean:
	rm -rf $(VENV)

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.10 or newer, or run make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1): Python 3.10 or newer is needed; run make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot create a virtual environment: install its venv module (on Debian and Ubuntu: python3-venv)" >&2; exit 1; }

$(VENV)/.installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[web]'
	@touch $@

$(VENV)/.installed-test: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.installed
