# kento: two commands do everything on a fresh machine: make train, make test.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
ARGS ?=
# words after a target are Hydra overrides: make optuna-sweep budget=smoke
WORDS := $(foreach name,budget searcher study seed sandbox llm executor model experiment logger,$(if $(filter command\ line,$(origin $(name))),$(name)=$($(name))))

.DEFAULT_GOAL := help
.PHONY: help setup data prints train test lint types bench bench-gpu optuna-sweep agent-sweep mcp demo compare report status dashboard wandb-sync clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /#/' | awk -F'#' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo
	@echo '  Overrides follow the target: make train ARGS="experiment=baseline model.logit_scale.max=100"'

setup: $(VENV)/installed ## environment in .venv and Debian packages; a second call installs nothing

$(VENV)/installed: pyproject.toml requirements.lock scripts/system_packages.sh
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Try: make setup PYTHON=python3.12"; exit 1; }
	@sh scripts/system_packages.sh
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	@touch $@

train: setup ## one full training run on the embedded data set, and its score
	$(RUN) train.py $(WORDS) $(ARGS)

data: setup ## fetch Ukiyo-eVG (network); then: make train ARGS="data=ukiyoe_vg model=eclip_vits"
	$(RUN) scripts/prepare_data.py ukiyoe_vg $(ARGS)

prints: setup ## draw the embedded data set (make train does it, too)
	$(RUN) scripts/prepare_data.py synthetic $(ARGS)

test: lint types ## linting, types, tests
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(RUN) -m pytest -n auto --dist loadscope $(ARGS)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: setup
	$(VENV)/bin/mypy

bench: setup ## training against a bare loop, start, pack, evaluation; the lab's and the sandbox's own time
	$(RUN) scripts/bench_train.py $(ARGS)
	$(RUN) scripts/bench_lab.py
	$(RUN) scripts/bench_sandbox.py
	$(RUN) scripts/bench_start.py

bench-gpu: setup ## the same with the published model and sizes, on a GPU: some minutes
	$(RUN) scripts/bench_train.py --gpu $(ARGS)

optuna-sweep: setup ## a TPE study on the embedded data set; budget=smoke|cpu|five_minutes searcher=tpe|cmaes|gp|random
	$(RUN) scripts/sweep.py $(WORDS) $(ARGS)

agent-sweep: setup ## a language model researches (needs a key, or llm=local); searcher=claude|claude_config|centaur
	$(RUN) scripts/sweep.py $(if $(searcher),,searcher=claude) $(WORDS) $(ARGS)

mcp: setup ## the lab's tools for any MCP client, on loopback: http://127.0.0.1:8765/mcp; ARGS="budget=five_minutes"
	$(RUN) -m agent.mcp_server --http 8765 $(WORDS) $(ARGS)

demo: setup ## a small campaign of random, TPE and playbook, and its report; no key, under 10 minutes
	$(RUN) scripts/campaign.py demo $(ARGS)

compare: setup ## searchers side by side, confirmed, with a report: ARGS="searchers=[tpe,claude] seeds=[0,1,2]"
	$(RUN) scripts/campaign.py compare $(WORDS) $(ARGS)

report: setup ## the report of one study: study=NAME, or of several: ARGS="studies=[A,B]"
	$(RUN) scripts/report.py $(if $(study),study=$(study)) $(ARGS)

status: setup ## where the studies stand; study=NAME for one
	$(RUN) scripts/status.py $(if $(study),study=$(study)) $(ARGS)

dashboard: setup ## optuna-dashboard on loopback, with every searcher's studies
	$(RUN) scripts/dashboard.py $(ARGS)

wandb-sync: setup ## upload a study's offline W&B runs: study=NAME
	$(RUN) scripts/wandb_sync.py study=$(study) $(ARGS)

clean: ## remove what was built here (not the data, not runs/)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
