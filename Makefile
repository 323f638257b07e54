# edgetune: everything a developer runs. `make help` lists the targets.
#
# Two environments, both pinned by requirements/*.lock:
#   .venv         the workstation: torch, onnx, onnxruntime-training-cpu and the tools; edgetune is
#                 editable there
#   .venv-device  a device: stock onnxruntime and numpy, neither torch nor onnx; the built wheel of
#                 edgetune is installed there
# `.venv-oldest` is a device with the oldest versions that pyproject.toml admits.
#
# PYTHON=...         the Python that makes the environments: CPython 3.11 or 3.12
# RELEASE=...        of Debian, for `make aarch64`: bookworm (Python 3.11) or trixie (3.13)
# EDGETUNE_DATA=...  the folder with the data sets of `make acceptance`

WORKSTATION := .venv
DEVICE := .venv-device
OLDEST := .venv-oldest
DEVICE_TESTS := tests/device tests/bundles

RELEASE ?= bookworm

# The first Python that answers, is of a right version and can make environments. (Debian keeps
# the last part in python3-venv; a pyenv shim can be on the path and still fail.)
CANDIDATES := python3.11 python3.12 python3
SUITS := import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for python in $(CANDIDATES); do \
	"$$python" -c '$(SUITS)' 2>/dev/null && echo "$$python" && break; done)

# Quiet but for errors.
PIP := -m pip -qq --disable-pip-version-check
# edgetune itself is installed without an index: all it asks for must be in the lock file.
INSTALL := install --no-index --no-build-isolation

# What the wheel is made of; folders too, so that a deleted file is noticed.
SOURCES := $(shell find edgetune exporters device_profiles -not -path '*__pycache__*') \
	pyproject.toml README.md LICENSE
WHEEL := dist/.built

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup lint test test-oldest test-bundles aarch64 node demo bench acceptance need-data
.PHONY: wheel lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(WORKSTATION)/.edgetune $(DEVICE)/.edgetune  ## make .venv and .venv-device

lint: $(WORKSTATION)/.edgetune  ## ruff, mypy --strict and the floors between modules
	$(WORKSTATION)/bin/ruff check
	$(WORKSTATION)/bin/ruff format --check
	$(WORKSTATION)/bin/mypy --strict
	$(WORKSTATION)/bin/lint-imports --no-logo

test: setup lint test-bundles  ## lint, the tests of device and emulated ARM, those of the export
	$(DEVICE)/bin/pytest $(DEVICE_TESTS) tests/aarch64
	$(WORKSTATION)/bin/pytest tests/export

test-oldest: $(OLDEST)/.edgetune test-bundles  ## the device tests with the oldest onnxruntime and numpy
	$(OLDEST)/bin/pytest $(DEVICE_TESTS)

# The workstation writes build/test-bundles, once per state of the sources; the devices train them.
test-bundles: $(WORKSTATION)/.edgetune
	$(WORKSTATION)/bin/python -m tests.bundles.make

# Debian's Python and PyPI's ARM wheels under build/aarch64, run by qemu; see docs/arm.md.
aarch64: $(DEVICE)/.edgetune test-bundles  ## emulated Raspberry Pis: verify, train, resume, compare with here
	$(DEVICE)/bin/python -m tests.aarch64.checks --wheel dist/edgetune-*.whl --release $(RELEASE)

node: $(DEVICE)/.edgetune test-bundles  ## a bundle trained from Node.js, compared (needs node and npm)
	cd examples/node && npm ci --ignore-scripts --no-audit --no-fund
	$(DEVICE)/bin/python examples/node/check.py cnn1d mobilenet_v3_small

demo: setup  ## the main job on scikit-learn's digits; needs no download of data
	$(WORKSTATION)/bin/python examples/demo.py

bench: setup  ## steps against PyTorch's and onnxruntime-training's; predicted against measured; planning times
	$(WORKSTATION)/bin/python benchmarks/step_speed.py
	$(WORKSTATION)/bin/python benchmarks/lowering_forms.py
	$(WORKSTATION)/bin/python benchmarks/selection_ladder.py
	$(WORKSTATION)/bin/python benchmarks/plan_speed.py
	$(WORKSTATION)/bin/python benchmarks/memory_truth.py $(if $(filter 0,$(shell id -u)),--limited)
	$(if $(filter 0,$(shell id -u)),$(WORKSTATION)/bin/python benchmarks/device_triples.py)
	$(WORKSTATION)/bin/python benchmarks/time_truth.py

acceptance: need-data setup  ## planner against brute force; the README's figures (EDGETUNE_DATA=folder)
	$(WORKSTATION)/bin/python -m tests.device.planned_cases --count 1000
	EDGETUNE_DATA='$(EDGETUNE_DATA)' $(WORKSTATION)/bin/python benchmarks/acceptance.py

need-data:
	@test -n '$(EDGETUNE_DATA)' || { echo 'EDGETUNE_DATA is not set: name the folder of the data sets,' \
	'as in make acceptance EDGETUNE_DATA=/path/to/data' >&2; exit 2; }

wheel: $(WHEEL)  ## build dist/edgetune-VERSION-py3-none-any.whl

lock:  ## resolve requirements/*.in again into requirements/*.lock
	$(call need-python)
	rm -rf build/lock && "$(PYTHON)" -m venv build/lock
	build/lock/bin/python requirements/lock.py
	rm -rf build/lock

clean:  ## remove the environments and all that was built
	rm -rf $(WORKSTATION) $(DEVICE) $(OLDEST) build dist examples/node/node_modules
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each environment has two stamps, written last, so that an interrupted set-up starts again:
# .packages for the lock file (a new environment), .edgetune for edgetune itself.

define need-python
@test -n '$(PYTHON)' || { echo 'no Python suits: edgetune is developed with CPython 3.11 or 3.12' \
	'and its venv module (Debian: apt install python3-venv); name one with PYTHON=...' >&2; exit 1; }
endef

define new-environment
$(call need-python)
@echo 'making $(@D) with $(PYTHON)'
@"$(PYTHON)" -m venv --clear $(@D)
@$(@D)/bin/python $(PIP) install -r $<
endef

define install-wheel
@echo 'installing the wheel into $(@D)'
@$(@D)/bin/python $(PIP) uninstall -y edgetune
@$(@D)/bin/python $(PIP) $(INSTALL) "$$(echo dist/edgetune-*.whl)[device,images]"
@touch $@
endef

$(WORKSTATION)/.packages: requirements/workstation.lock requirements/workstation-no-deps.lock
	$(new-environment)
	@$(@D)/bin/python $(PIP) install --no-deps -r requirements/workstation-no-deps.lock
	@touch $@

$(WORKSTATION)/.edgetune: $(WORKSTATION)/.packages pyproject.toml
	@$(@D)/bin/python $(PIP) $(INSTALL) -e '.[export,images]'
	@touch $@

$(DEVICE)/.packages: requirements/device.lock
	$(new-environment)
	@touch $@

$(OLDEST)/.packages: requirements/device-oldest.lock
	$(new-environment)
	@touch $@

$(DEVICE)/.edgetune: $(DEVICE)/.packages $(WHEEL)
	$(install-wheel)

$(OLDEST)/.edgetune: $(OLDEST)/.packages $(WHEEL)
	$(install-wheel)

$(WHEEL): $(SOURCES) | $(WORKSTATION)/.packages
	@rm -f dist/edgetune-*.whl
	@$(WORKSTATION)/bin/hatchling build -t wheel -d dist
	@touch $@
