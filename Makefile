PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run install test test-all lint chaos bench bench-limits bench-scale llama-server docs picture lock clean

run: install ## install what is needed and run the daemon with config.json
	@$(BIN)/python main_with_database.py run

install: $(STAMP) ## install the dependencies of requirements.lock into .venv

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) or sys.version_info >= (3, 14))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed; name one: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "the venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "installing the dependencies into $(VENV)"
	@if command -v uv >/dev/null 2>&1; then \
	  VIRTUAL_ENV=$(VENV) uv pip install --quiet --require-hashes -r requirements.lock && \
	  VIRTUAL_ENV=$(VENV) uv pip install --quiet --no-deps --no-build-isolation -e .; \
	else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	fi
	@touch $(STAMP)

test: install lint ## every check and every test that takes less than a minute
	@$(BIN)/python -m pytest -n 2 -q -m "not slow"

test-all: install lint ## the long tests as well
	@$(BIN)/python -m pytest -n 2 -q

lint: install
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports --no-logo

chaos: install ## kill, starve and deceive the daemon for minutes, and count what was lost or doubled
	@$(BIN)/python -m tests.chaos --full

bench: install ## what the daemon costs, as ratios in one run
	@$(BIN)/python -m bench

bench-limits: install ## how much of a quota is used against a server that counts strictly, and what a call costs
	@$(BIN)/python -m bench limits
	@$(BIN)/python -m bench quota

bench-scale: install ## what the daemon carries: signals and tasks a second, long queues, a year of bars
	@$(BIN)/python -m bench scale

llama-server: install ## build the real llama-server and a tiny model for the tests (needs cmake and a C++ compiler)
	@$(BIN)/python -m tests.llama.build

docs: install ## write what is generated: the settings page and schema, the SQL, the columns
	@$(BIN)/python -m service.settings_docs
	@$(BIN)/python -m database.schema_sql --write
	@$(BIN)/python -m database.columns_page
	@$(BIN)/python -m service.deploy_files

picture: install ## make the pictures in docs/ from the running program (that of the page needs chromium)
	@$(BIN)/python -m docs.make_picture docs/live-view.svg
	@$(BIN)/python -m docs.make_page_pictures docs

lock: install ## pin the dependencies of pyproject.toml anew
	@uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate --quiet -o requirements.lock
	@uv pip compile pyproject.toml --group build --extra exchange --extra otel --constraint requirements.lock --universal \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -o deploy/requirements.lock

clean: ## remove the virtual environment and caches; output/ stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
