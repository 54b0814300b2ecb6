# qcrd: `make setup`, `make check`, `make test`; `make help` lists all.

# The newest of these that runs, is supported and has pip; `make PYTHON=...` decides. Being on the PATH is not enough:
# pyenv puts names there that only say "command not found". `.venv` keeps its Python until `make clean`.
PYTHONS := python3.13 python3.12 python3.11 python3
SUPPORTED := -c 'import sys, pip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1
ifndef PYTHON
PYTHON := $(shell for python in $(PYTHONS); do $$python $(SUPPORTED) && echo $$python && break; done)
endif
# The CUDA build of vLLM where an NVIDIA GPU answers, the CPU build elsewhere; `make setup ACCELERATOR=cpu` decides.
ACCELERATOR ?= $(shell nvidia-smi -L 2>/dev/null | grep -q '^GPU' && echo cuda || echo cpu)
VENV := .venv
BIN := $(VENV)/bin
AUDIT := .venv-audit
# No telemetry leaves the machine, and tests look nothing up on a model hub.
export DO_NOT_TRACK := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export VLLM_NO_USAGE_STATS := 1

QUESTION := Ann has 3 bags with 4 apples each. She gives away 5. How many apples does Ann have now?

.PHONY: help setup quickstart check test fast-test stack-test audit clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/installed-$(ACCELERATOR) ## the environment in .venv, every version pinned
ifneq ($(origin PYTHON),file)
	@asked=$$($(PYTHON) -V) && made=$$($(BIN)/python -V) && test "$$asked" = "$$made" || { \
		echo "$(VENV) holds $$made, not the $$asked of PYTHON=$(PYTHON): run make clean first" >&2; exit 1; }
endif

# Debian ships Python without ensurepip, so the environment is made without pip and filled by the pip that is there.
$(VENV)/installed-$(ACCELERATOR): requirements/$(ACCELERATOR).lock pyproject.toml
	@$(or $(PYTHON),false) $(SUPPORTED) || { echo "qcrd needs Python 3.11, 3.12 or 3.13, with pip (tried:" \
		"$(or $(PYTHON),$(PYTHONS))): install one, or name one: make PYTHON=/path/to/python3.13" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	@rm -f $(VENV)/installed-*
	@echo "Installing $(ACCELERATOR) packages into $(VENV) (about 4.5 GB, a few minutes) ..."
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --quiet --no-deps -r requirements/$(ACCELERATOR).lock || { \
		echo "Not everything could be installed; the lines above say what. If it is torch==...+cpu: name PyTorch's index" >&2; \
		echo "of CPU wheels in PIP_EXTRA_INDEX_URL (see requirements/README.md) and run make setup again." >&2; exit 1; }
	@$(PYTHON) -m pip --python $(BIN)/python install --quiet --quiet --no-deps --no-build-isolation -e .
	@touch $@
	@echo "Done. Try: $(BIN)/qcrd doctor"

quickstart: setup ## the whole pipeline on this machine: teacher, votes, QCRD beside dss, a registered champion
	@$(BIN)/qcrd distill quickstart
	@echo
	@$(BIN)/qcrd predict "$(QUESTION)"

check: setup ## lint, format, types, import contract, deploy/, no secret in any file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict deploy flows/configs
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml
	@git ls-files -z --cached --others --exclude-standard | xargs -0 $(BIN)/detect-secrets-hook --no-verify

# Not three at a time on two cores: Prefect's SQLite databases are then found locked for longer than its server waits.
test: check ## everything CI runs, two files at a time
	@tests/system_packages.sh
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

fast-test: setup ## only the tests that need no trained teacher and no vLLM server
	$(BIN)/pytest -m "not slow"

stack-test: setup ## the services of deploy/compose.yaml as processes, and a scheduled distillation through them
	@tests/system_packages.sh
	$(BIN)/pytest tests/deploy/test_stack.py

# Not part of `make test`: it asks a service on the network, and what that answers changes from day to day.
audit: ## known vulnerabilities of the pinned packages, from the OSV database (needs the network)
	@test -x $(AUDIT)/bin/pip-audit || $(PYTHON) -m venv --without-pip $(AUDIT)
	@$(PYTHON) -m pip --python $(AUDIT)/bin/python install --quiet --quiet --no-deps -r requirements/audit.lock
	@for lock in cpu cuda; do \
		sed 's/+cpu$$//; s/;.*//' requirements/$$lock.lock > $(AUDIT)/$$lock.txt; \
		echo "requirements/$$lock.lock:"; \
		$(AUDIT)/bin/pip-audit --strict --disable-pip --no-deps --vulnerability-service osv $(AUDIT_OPTIONS) \
			-r $(AUDIT)/$$lock.txt 2> $(AUDIT)/log && { cat $(AUDIT)/log; continue; }; \
		if grep -q 'requests.exceptions\|ServiceError' $(AUDIT)/log; then \
			echo "Nothing was audited: the OSV service was not reached." >&2; tail -n 1 $(AUDIT)/log >&2; \
		else cat $(AUDIT)/log >&2; fi; exit 1; \
	done

clean: ## remove the environment and caches; the state under .qcrd stays
	rm -rf $(VENV) $(AUDIT) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
