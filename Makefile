# Needs Python >= 3.11, git and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export GX_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: run up plan test test-unit test-integration test-performance check format lock soak kills bench bench-anomaly clean

run: $(STAMP)
	@$(BIN)/autosync run

plan: $(STAMP)
	@$(BIN)/autosync plan

up: $(STAMP)
	@$(BIN)/autosync up

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "AutoSync needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (about two minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

test: $(STAMP)
	@$(BIN)/python -m pytest tests/unit tests/contract tests/integration

test-unit: $(STAMP)
	@$(BIN)/python -m pytest tests/unit

test-integration: $(STAMP)
	@$(BIN)/python -m pytest tests/contract tests/integration

test-performance: $(STAMP)
	@$(BIN)/python -m pytest tests/performance

check: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy autosync blocks analytics reports flows tests
	@$(BIN)/lint-imports

format: $(STAMP)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

soak: $(STAMP)
	@HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest tests/integration/test_state_machine.py

kills: $(STAMP)
	@$(BIN)/python -m tests.performance.random_kills

bench: $(STAMP)
	@$(BIN)/python -m tests.performance.datapath --shape all --others --json

bench-anomaly: $(STAMP)
	@$(BIN)/python -m tests.performance.bench_anomaly

# Needs uv. Leaves no registry address in the file.
lock:
	uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --generate-hashes --upgrade \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --output-file requirements.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
