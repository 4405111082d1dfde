# One verb per task, for people and for CI alike.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
JOBS   ?= 2
CORES  := ess_can/can/*,ess_can/signals/*,ess_can/isotp/*,ess_can/uds/*,ess_can/image/*,ess_can/trust/*
CORES  := $(CORES),ess_can/sim/flash*,ess_can/sim/fram*,ess_can/sim/boot*,ess_can/sim/programming*,ess_can/sim/pcs.py
CORES  := $(CORES),ess_can/sim/electrical*,ess_can/sim/hv_*,ess_can/sim/rack*,ess_can/sim/image_verdict*
CORES  := $(CORES),ess_can/gateway/hv_gate.py,ess_can/gateway/policy.py,ess_can/gateway/phases.py
# What may break a node or a person: every branch of it is taken by a test.
WHOLLY := $(patsubst %,ess_can/gateway/%.py,upgrade armed_trials node_upgrade node_revert settle resume record run plan)
WHOLLY += $(patsubst %,ess_can/gateway/%.py,interlock hv_gate isolation watch orders policy evidence phases streamed_image)
WHOLLY += $(patsubst %,ess_can/sim/%.py,flash flash_cells flash_queue fram power_cut boot_records bootloader)
WHOLLY += $(patsubst %,ess_can/sim/%.py,programming image_verdict)
WHOLLY += ess_can/journal/* ess_can/signals/e2e.py
SPACE  := $(subst ,, )
COMMA  := ,

PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
# Whole upgrades and foreign tools: the cores' coverage has to come from the cores' own tests, and costs time here.
WHOLE  := tests/campaign tests/interop tests/regression tests/scenario tests/unit/campaign tests/unit/cli

# A campaign is what asks how much of it to run, wherever it stands (tests/campaign/counts.py).
CAMPAIGN = tests/campaign $(shell grep -rl --include='test_*.py' 'tests.campaign.scale import' tests | grep -v ^tests/campaign/)

.DEFAULT_GOAL := help
# Which cases the slice has changes with the commit.
DRAWN_BY = $(shell git rev-parse --short=12 HEAD 2>/dev/null)

.PHONY: help demo test campaign campaign-slice test-vcan test-kernel check fmt firmware bench bench-quick docs clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

$(VENV)/.installed: pyproject.toml .ci/setup
	@PYTHON=$(PYTHON) .ci/setup $(VENV) .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml .ci/setup
	@PYTHON=$(PYTHON) .ci/setup $(VENV) '.[dev]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed ## Upgrade a simulated plant, start to end
	@$(BIN)/ess-can demo

test: $(VENV)/.installed-dev ## Run all tests, and see that they reach the cores
	@rm -f .coverage .coverage.*
	$(PYTEST) $(WHOLE)
	$(PYTEST) --cov --cov-report= tests/architecture tests/golden tests/property tests/unit $(WHOLE:%=--ignore=%)
	@$(BIN)/coverage report --include='$(CORES)' --skip-covered --fail-under=95
	@$(BIN)/coverage report --include='$(subst $(SPACE),$(COMMA),$(strip $(WHOLLY)))' --skip-covered --show-missing --fail-under=100

campaign: $(VENV)/.installed-dev ## Every fault at every place, all of it: hours become minutes in virtual time
	ESS_CAN_CAMPAIGN=whole $(PYTEST) $(CAMPAIGN)

campaign-slice: $(VENV)/.installed-dev ## A part of the campaign that changes with the commit
	ESS_CAN_CAMPAIGN=slice ESS_CAN_CAMPAIGN_SEED=$(DRAWN_BY) $(PYTEST) $(CAMPAIGN)

test-vcan: $(VENV)/.installed-dev ## Between processes over vcan, in User-Mode Linux where the kernel has no CAN
	$(BIN)/python tests/bench/run_vcan.py

test-kernel: $(VENV)/.installed-dev ## Real CAN drivers and the kernel's ISO-TP, in QEMU
	$(BIN)/python tests/bench/run_kernel.py

check: $(VENV)/.installed-dev ## Format, lint, types, generated documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m docs.generate --check

fmt: $(VENV)/.installed-dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

firmware: $(VENV)/.installed-dev ## Build and sign the sample firmware (needs gcc-arm-none-eabi)
	$(MAKE) -C firmware_samples PYTHON=$(abspath $(BIN)/python)
	$(BIN)/python firmware_samples/build.py
	$(BIN)/python firmware_samples/make_bad.py

bench: $(VENV)/.installed-dev ## Measure everything beside the peers: table, JSON and plots in build/bench
	@$(BIN)/python -m benchmarks

bench-quick: $(VENV)/.installed-dev ## The same with small images, in less than two minutes
	@$(BIN)/python -m benchmarks --quick

docs: $(VENV)/.installed-dev ## Write the generated parts of the documents
	$(BIN)/python -m docs.generate

clean: ## Remove what the other verbs made
	rm -rf $(VENV) .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	$(MAKE) -C firmware_samples clean
