# `make quickstart`: install into .venv and train on real documents, offline.
# `make test`: install and run the whole suite, a worker for each core.
# `make test-oldest`: install the oldest releases that are supported, and run the core of the suite.
# `make test-fast`: the tests of single modules alone, without those that take long.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: quickstart test test-fast test-oldest lint audit docs install clean

quickstart: install
	$(BIN)/accelerate launch finetune/run.py recipes/bbc_news.yaml

# Workers that have nothing left to do take tests of others.
WORKERS := --numprocesses logical --maxprocesses 8 --dist worksteal
# One commit, one outcome: property tests draw the same inputs each time. `make test SEED=7` draws others.
SEED := 0
WORKERS += --hypothesis-seed=$(SEED)

test: install
	$(BIN)/python -m pytest $(WORKERS)

test-fast: install
	$(BIN)/python -m pytest $(WORKERS) -m "not slow" tests/unit

# What touches other libraries most: reading data and recipes, building and training a model,
# resuming, scoring, publishing to a Hub on this machine.
CORE := tests/unit/config tests/unit/data tests/unit/training tests/unit/evaluation \
	tests/unit/hub tests/unit/modeling/test_build.py tests/unit/test_pipeline.py \
	tests/end_to_end/test_push.py
OLDEST := .venv-oldest/bin

test-oldest: .venv-oldest/installed
	$(OLDEST)/python -m pytest $(WORKERS) $(CORE)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Known vulnerabilities of the pinned releases. Not a part of lint: it asks the advisories of PyPI, which
# a build without a network, or with a mirror of packages alone, cannot reach. Its tools have an
# environment of their own.
audit:
	test -x .venv-audit/bin/python || $(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv-audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

# The pages of docs/ that the code decides are written anew, then all of them become site/.
docs: install
	$(BIN)/python scripts/docs/make_pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

install: .venv/installed

# torch comes first, alone and pinned: resolved together with the others, pip may fetch several
# releases of it, each of some hundred MB or more, before it settles.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[offline,sweep,tensorboard,demo,docs,onnx,openvino,ray,serve,suspects,test]'
	touch .venv/installed

.venv-oldest/installed: pyproject.toml constraints-oldest.txt
	test -x $(OLDEST)/python || $(PYTHON) -m venv .venv-oldest
	$(OLDEST)/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt torch
	$(OLDEST)/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e '.[offline]' hypothesis pytest pytest-xdist
	touch .venv-oldest/installed

clean:
	rm -rf .venv .venv-audit .venv-oldest build site *.egg-info
