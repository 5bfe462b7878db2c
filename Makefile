# demo · test · check · bench. Each target makes .venv when it is missing; a second call installs nothing.
FEWLABEL_PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.fewlabel-ready
# Small networks on few, often shared cores: one thread a process is steady, two can be ten times slower when a core is busy.
export OMP_NUM_THREADS ?= 1
BUNDLE ?= endoscopic_tool_segmentation_mms

.PHONY: demo test check bench clean

$(READY): pyproject.toml constraints.txt
	test -x $(PY) || $(FEWLABEL_PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(READY)        ## train on phantoms, compare with the baseline, evaluate, infer; prints where the pictures are
	$(PY) tools/demo.py --bundle $(BUNDLE)

test: $(READY)        ## the whole test suite
	$(PY) -m pytest

check: $(READY)       ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: $(READY)       ## kernels against their alternatives; appends rows to tools/bench/results
	$(PY) tools/bench/run.py

clean:
	rm -rf $(VENV) bundles/*/models bundles/*/output
