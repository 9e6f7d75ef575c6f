# Everything runs in .venv, which is made from Python 3.11 alone.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null || echo $(VENV)/bootstrap/bin/uv)

.DEFAULT_GOAL := help
.PHONY: help demo test unit integration check validate bench bench-peers bench-guard format lock clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.ready ## play the whole loop on this machine: planted drift, retraining, promotion, audit (KEEP=--keep: leave it running)
	@$(BIN)/tailrace demo $(KEEP)

SERVERS := tests/integration tests/live

test: unit integration ## every test, on an embedded Kafka and Redis; a skipped integration test fails

unit: $(VENV)/.ready ## the tests that need no server, on all cores
	TAILRACE_REQUIRE_INTEGRATION=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile $(SERVERS:%=--ignore=%)

integration: $(VENV)/.ready ## the tests that need Kafka, Redis, Prometheus or a browser; a skipped one fails
	TAILRACE_REQUIRE_INTEGRATION=1 $(BIN)/python -m pytest $(SERVERS)

check: $(VENV)/.ready ## format, lint, types, import rules, published schemas and metrics
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/contracts tests/telemetry

validate: $(VENV)/.ready ## the files of production: image, compose, Kubernetes; builds docker compose, minutes at first
	TAILRACE_REQUIRE_INTEGRATION=1 $(BIN)/python -m pytest tests/production tests/production/validate_docker_compose.py

bench: $(VENV)/.ready ## load tests against hand-written references, medians of three, ten minutes; exit code 1 where a floor is not met
	$(BIN)/python -m load_tests run --repeat 3

bench-peers: $(VENV)/.ready ## install the peers, each in an environment of its own, and run them beside ours, half an hour
	PATH="$(dir $(UV)):$$PATH" $(BIN)/python -m load_tests.peers.environments
	$(BIN)/python -m load_tests run --peers --repeat 3 inference windows feedback latency latency_beside_faust

bench-guard: $(VENV)/.ready ## ours over the naive loop, by ratio: what CI holds
	$(BIN)/python -m load_tests run guard --repeat 3

format: $(VENV)/.ready ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## resolve requirements.lock anew
	$(UV) pip compile --quiet --python-version 3.11 --extra dev --generate-hashes --no-emit-index-url --no-header \
	  --no-annotate pyproject.toml --output-file requirements.lock

clean: ## remove the environment
	rm -rf $(VENV)

$(VENV)/.ready: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	@test -x "$(UV)" || { $(PYTHON) -m venv $(VENV)/bootstrap && $(VENV)/bootstrap/bin/pip install --quiet uv; }
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@
