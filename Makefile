# make setup | make demo [ONCE=1] [DAYS=14|all] [DATA=path MAPPING=path] | make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DAYS ?= 14

export DAGSTER_DISABLE_TELEMETRY := 1
export DBT_SEND_ANONYMOUS_USAGE_STATS := false

.PHONY: setup demo test lint lock clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt requirements-uv.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else f"Python 3.11 to 3.13 is needed, this is {sys.version.split()[0]}: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@# uv reads no pip.conf: where only pip knows the way to the packages, pip goes, and takes minutes.
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.txt \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@test -f environments/sandbox/.env || cp environments/sandbox/.env.example environments/sandbox/.env
	@touch $@

demo: setup
	@$(BIN)/heap-integration demo $(if $(ONCE),--once) --days $(DAYS) $(if $(ENDS),--ends $(ENDS)) $(if $(DATA),--data "$(DATA)") $(if $(MAPPING),--mapping "$(MAPPING)")

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/dbt --quiet parse --project-dir dbt_project --profiles-dir dbt_project

test: lint
	@# One more worker than this machine is likely to have cores: several tests wait for the clock.
	$(BIN)/pytest -n 3 --dist worksteal --cov --cov-report=term:skip-covered

# Resolve the versions again and lock them with their hashes.
lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra s3 --extra postgres --extra dbt --extra dev --generate-hashes \
		--no-emit-index-url --no-header pyproject.toml -o requirements.txt

clean:
	rm -rf $(VENV) .cache data dbt_project/target dbt_project/logs
