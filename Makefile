# The two commands a newcomer needs: make demo, make test. Both build .venv from requirements.txt first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test install clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@# torch first and alone: an exact version lets pip choose a CPU build where one is offered
	$(BIN)/python -m pip install --quiet "$$(grep '^torch==' requirements.txt)"
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo: install
	$(BIN)/visrep demo

test: install
	$(BIN)/ruff check src tests benchmarks examples train.py
	$(BIN)/mypy
	@# one torch thread per worker: more would only wait for each other
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

clean:
	rm -rf $(VENV)
