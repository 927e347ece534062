# One command each.  Everything is installed into .venv by the first target that needs it.
PYTHON ?= python3.11
BIN := .venv/bin
ARGS ?=
FAST := tests/unit tests/contract tests/property tests/golden
# Two workers, however many processors there are: each has servers of several processes and 1.2 GiB, and much
# of the time that their tests take is spent waiting.  tests/conftest.py says who runs what, and in which order.
PAIR := -n 2 --dist loadfile --no-loadscope-reorder
SEEDS ?= 1000:11000
# One more than there are processors: many tests wait, and each further process takes seconds to begin.
WORKERS := $(shell expr $$(nproc) + 1)
# Whatever the environment says, these processes share what one of them has compiled.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q

.PHONY: serve test test-fast test-all check bench peers goals guard lock clean help

help: ## What can be made.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1 \t\2/' | expand -t 20

.venv/ready: requirements.lock pyproject.toml
	@echo "Setting up .venv (about two minutes the first time) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

serve: .venv/ready ## Set up and run everything; Ctrl-C ends it.
	@exec $(BIN)/rayspond serve $(ARGS)

test: .venv/ready ## All tests: fast ones first, then on a real Ray, NATS and HTTP.
	@$(PYTEST) -n $(WORKERS) --dist worksteal $(FAST) tests/fuzz tests/simulator $(ARGS)
	@$(PYTEST) $(PAIR) tests/integration tests/e2e tests/chaos $(ARGS)

test-fast: .venv/ready ## Without Ray and what is thorough, with fewer examples: under a minute.
	@$(PYTEST) -n $(WORKERS) --dist worksteal -m "not thorough" --hypothesis-profile fast $(FAST) $(ARGS)

test-all: test ## All tests, faults by chance, many seeds of the simulator, and every mechanism removed once.
	@$(BIN)/python -m tests.chaos.driver --seconds 300
	@$(BIN)/python -m tests.chaos.driver --seconds 300 --postgres
	@$(BIN)/python -m tests.simulator --seeds $(SEEDS)
	@$(BIN)/python -m tests.mutations

check: .venv/ready ## Lint, types twice, and the direction of imports.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pyright --warnings
	@$(BIN)/lint-imports

bench: .venv/ready ## Measure beside a bare Ray Serve echo, with ratios within the run.
	@$(BIN)/python -m bench $(ARGS)

peers: .venv/ready ## Install what `make bench` measures beside us: LiteLLM, OGX (with Python 3.12), agentic-api.
	@$(BIN)/python -m bench.peers

goals: .venv/ready ## Run every bench and tell which goals are reached: about an hour.
	@$(BIN)/python -m bench.goals $(ARGS)

guard: .venv/ready ## Fail where it became slow beside the bare echo of the same run: a minute.
	@$(BIN)/python -m bench.guard

lock: .venv/ready ## Pin every dependency anew, with hashes and without index addresses.
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --group dev pyproject.toml -o requirements.lock

clean: ## Remove the environment and every cache.
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
