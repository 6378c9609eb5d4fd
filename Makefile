# Two commands on a fresh machine: `make demo` paints the bundled clip, `make test` runs every check.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test bench gpu format clean

demo: $(VENV)/base
	$(BIN)/fauve run docs/big_buck_bunny.mp4 -o demo_painted.mp4 --style pointillism --force

# What trains has processes of its own: torch has crashed where OpenVINO had run before, as it has in test_hot_swap, the last.
TORCH := $(addprefix tests/test_,prefetch.py train.py evaluate.py augment.py inception.py torchvision.py convolution.py hot_swap.py)
# A worker that crashes ends the tests: pytest-xdist can wait for its tests for ever.
# One thread each for torch, whose threads otherwise wait for one another in a spin.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --max-worker-restart 0
# Live tests wait for the clock three quarters of their time: three workers keep two cores busy. A file is one worker's,
# for its servers and clusters; conftest.py has the order.
FILES := -n 3 --dist loadfile --no-loadscope-reorder

test: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) $(TORCH)
	$(PYTEST) $(FILES) $(TORCH:%=--ignore=%)

bench: $(VENV)/dev
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.flicker
	$(BIN)/python -m benchmarks.workers
	$(BIN)/python -m benchmarks.engines

# On a machine with an NVIDIA GPU; torch must be the build for its driver. Some ten minutes. Where nothing can be
# installed: make gpu -o .venv/dev BIN=bin, with the folder of a Python that has torch, Triton, PyAV, ONNX and pytest-xdist.
GPU := $(shell grep -l mark.gpu tests/test_*.py)
gpu: $(VENV)/dev
	FAUVE_FAIL_WITHOUT_GPU=1 $(PYTEST) -m gpu $(GPU)
	$(BIN)/python -m benchmarks.engines --engine torch:cuda --engine tensorrt --budget 240
	$(BIN)/python -m benchmarks.tiles --budget 120

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) demo_painted.mp4 .mypy_cache .pytest_cache .ruff_cache *.egg-info

# What comes last: Python is there, too, where Debian has no python3-venv yet.
$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/base: $(VENV)/bin/pip pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/dev: $(VENV)/bin/pip pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/base
