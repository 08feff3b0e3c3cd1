# make demo    train and look: runs/demo/report.html, 10 to 20 minutes on two CPU cores
# make test    all tests
# make test-fast    those that start no process and are not slow, for every save: three minutes on two cores
# make test-cluster    SLURM: a cluster of four nodes on this machine (root on Debian or Ubuntu installs it); minutes
# make test-browser    the report and the studio in Chromium, which is installed as root on Debian or Ubuntu; seconds
# make docs    the documentation as HTML pages: build/docs/index.html; a minute with the installation
# make soak    kill a training at every place and at random, fifty times: ten minutes and more
# Variables: PYTHON (which python makes .venv), TORCH_INDEX (where torch comes from, e.g. PyTorch's CPU builds)

.PHONY: demo demo-ci docs test test-fast test-cluster test-browser soak lint install install-test clean-demo

# Python keeps its bytecode even where the environment forbids it, as containers often do: without it each start of an
# interpreter compiles all that it imports, which takes two seconds and more
export PYTHONDONTWRITEBYTECODE :=

# in the order of tests/harness/lanes.py: long files first
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

demo: install
	.venv/bin/python tools/demo.py --folder runs/demo

demo-ci: install
	.venv/bin/python tools/demo.py --folder runs/demo-ci --short
	.venv/bin/python tools/check_demo.py runs/demo-ci

test: install-test
	.venv/bin/python -m pytest $(PARALLEL)

test-fast: install-test
	.venv/bin/python -m pytest $(PARALLEL) -m 'not processes and not slow'

test-cluster: install-test
	slurm/testcluster/cluster.sh install
	.venv/bin/python -m pytest -m cluster --timeout=900 -n 4 --dist loadfile --no-loadscope-reorder tests/cluster

test-browser: install-test
	@command -v chromium >/dev/null || [ -n "$$LEDIFLOW_BROWSER" ] || [ "$$(id -u)" != 0 ] || \
	  { apt-get update -q && apt-get install -q --yes --no-install-recommends chromium; }
	.venv/bin/python -m pytest -m browser $$(grep -rl --include='*.py' mark.browser tests)

soak: install-test
	.venv/bin/python -m pytest -m soak -s tests/distributed/test_kill_anywhere.py

docs:
	@tools/install.sh docs
	.venv/bin/python tools/build_docs.py

lint: install-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/mypy

install:
	@tools/install.sh demo

install-test:
	@tools/install.sh test

clean-demo:
	rm -rf runs/demo runs/demo-ci
