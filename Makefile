# demo · test · check · bench · test-monailabel. Each target makes .venv when it is missing; a second call installs nothing.
FEWLABEL_PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.fewlabel-ready
# Small networks on few, often shared cores: one thread a process is steady, two can be ten times slower when a core is busy.
export OMP_NUM_THREADS ?= 1
BUNDLE ?= endoscopic_tool_segmentation_mms

.PHONY: demo test check bench test-monailabel clean

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

BENCH_READY := $(VENV)/.fewlabel-bench-ready

$(BENCH_READY): $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[bench]"
	touch $@

bench: $(BENCH_READY)  ## kernels against their alternatives, on all cores; appends rows to tools/bench/results
	env -u OMP_NUM_THREADS $(PY) tools/bench/run.py

LABEL_VENV := .venv-monailabel
LABEL_READY := $(LABEL_VENV)/.ready
LABEL_PIP := $(LABEL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check

$(LABEL_READY): pyproject.toml tests/monailabel/constraints.txt tests/monailabel/requirements.txt
	test -x $(LABEL_VENV)/bin/python || $(FEWLABEL_PYTHON) -m venv $(LABEL_VENV)
	$(LABEL_PIP) --constraint tests/monailabel/constraints.txt --requirement tests/monailabel/requirements.txt
	$(LABEL_PIP) --constraint tests/monailabel/constraints.txt --no-deps monailabel
	$(LABEL_PIP) --constraint tests/monailabel/constraints.txt --editable .
	touch $@

test-monailabel: $(LABEL_READY)  ## MONAI Label's real server with our bundle, in an environment of its own (8 GB)
	$(LABEL_VENV)/bin/python -m pytest tests/monailabel

clean:
	rm -rf $(VENV) $(LABEL_VENV) bundles/*/models bundles/*/output
