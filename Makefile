# `make quickstart`: install into .venv and train on real documents, offline.
# `make test`: install and run the whole suite, a worker for each core.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: quickstart test lint docs install clean

quickstart: install
	$(BIN)/accelerate launch finetune/run.py recipes/bbc_news.yaml

# One thread in each worker: several that compute at once wait for each other's threads.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[offline,sweep,tensorboard,demo,docs,onnx,ray,suspects,test]'
	touch .venv/installed

clean:
	rm -rf .venv build site *.egg-info
