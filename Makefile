# Every target sets itself up: a machine needs Python 3.11+ with pip, and nothing else.
PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= configs/quickstart.yaml
# Of one thread each, for a machine of 2 cores. A file's tests stay together, because they share what they set up, and
# files go in their order, because the longest (those with a cluster) are among the first.
TEST_PROCESSES ?= 2

.PHONY: run job test test-fast lint bench bench-loader gpu-check chaos tables diorama clean

run: .venv/.run  ## generate a corpus with an erased concept through Ray, and say where to look
	$(BIN)/lacuna run $(CONFIG)
	$(BIN)/lacuna status "$$($(BIN)/python -c 'import sys; from pipeline.config import load_config; print(load_config(sys.argv[1]).output.path)' $(CONFIG))"

job: .venv/.run  ## the same through `ray job submit`, on a head started for it
	PATH="$(abspath $(BIN)):$$PATH" sh jobs/submit.sh $(CONFIG)

test: .venv/.dev
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test-fast: .venv/.dev  ## all but the tests that are marked slow
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m "not slow"

lint: .venv/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: .venv/.dev  ## ours, a tuned diffusers loop, Ray Data and the ceiling, side by side
	$(BIN)/python jobs/bench.py --results jobs/results/bench.json
	$(BIN)/python jobs/tables.py

bench-loader: .venv/.dev  ## reading a corpus into training, beside other loaders of the same shards
	$(BIN)/python jobs/bench_loader.py --results jobs/results/bench_loader.json
	$(BIN)/python jobs/tables.py

gpu-check: .venv/.run  ## the engine on this machine's GPU, beside plain diffusers; a second call goes on with the first
	$(BIN)/python jobs/gpu_check.py --json jobs/results/gpu_check.json; status=$$?; $(BIN)/python jobs/tables.py && exit $$status

chaos: .venv/.dev  ## SIGKILLs of every process of a run, then the same bytes
	$(BIN)/python jobs/chaos.py --results jobs/results/chaos.json
	$(BIN)/python jobs/tables.py

tables: .venv/.run  ## the tables of the READMEs, from the results of measurements
	$(BIN)/python jobs/tables.py

diorama: .venv/.dev  ## train the built-in model anew (hours on a CPU)
	$(BIN)/python -m pipeline.diorama.train configs/diorama/train.yaml

# Debian's and Ubuntu's Python has no ensurepip without python3-venv: there the pip at hand installs one into .venv.
# torch comes first and alone: resolved together with what needs it, pip may fetch gigabytes of another build.
.venv/.torch: constraints.txt
	$(PYTHON) -m venv .venv || { $(PYTHON) -m venv --clear --without-pip .venv && \
		$(PYTHON) -m pip --python $(BIN)/python install -q pip; }
	$(BIN)/pip install -q -c constraints.txt torch numpy
	touch $@

.venv/.run: .venv/.torch pyproject.toml
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

.venv/.dev: .venv/.torch pyproject.toml
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@ .venv/.run

clean:
	rm -rf out .venv
