# Every target sets up what it needs in .venv first. Bring your own torch: make demo CONSTRAINTS=/dev/null
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
OUT ?= outputs/demo
VIDEO ?= outputs/real/vtest.avi
# Draws the cell that is run again: another one with each commit.
DRAW ?= $(shell git rev-parse HEAD 2>/dev/null || date +%F)
# Two test processes with one thread each beat one process with two; a file's tests share what they made. Bytecode is
# written even where the environment says not to, or every process of every run compiles the package and the tests.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-slow test-browser screenshots lint format bench gpu gpu-smoke recheck wheel-check docs real-video clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# TORCH=cpu: PyTorch's build without CUDA, 2.13.0+cpu, which pip prefers to PyPI's 2.13.0. TORCH_INDEX: a mirror of it.
TORCH_INDEX ?= https://download.pytorch.org/whl/$(TORCH)
INDEX := $(if $(TORCH),--extra-index-url $(TORCH_INDEX))

# One stamp per set of extras; it is older than the project's dependency lists when they change.
$(VENV)/.%: pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(INDEX) -c $(CONSTRAINTS) -e '.[$*]'
	touch $@

demo: $(VENV)/.plot ## The whole pipeline on embedded people, a page at the end
	$(BIN)/dapg demo --out $(OUT)

serve: $(VENV)/.serve ## A gallery of rendered people to search by night pictures, in the browser
	$(BIN)/dapg serve --demo

test: $(VENV)/.test ## Fast tests
	$(PYTEST) -m "not slow and not cuda"

test-slow: $(VENV)/.test ## All tests
	$(PYTEST) -m "not cuda"

test-browser: $(VENV)/.test ## The pages in Chromium (apt-get install chromium chromium-driver)
	DAPG_BROWSER=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser

screenshots: $(VENV)/.test ## Screenshots of the pages for the docs (apt-get install chromium chromium-driver)
	$(BIN)/python scripts/screenshots.py $(OUT)

lint: $(VENV)/.lint $(VENV)/.test ## ruff, mypy --strict, codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: $(VENV)/.lint ## Let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test ## Figures of the docs: start-up, kills, data waiting
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/kill_campaign.py outputs/kill-campaign
	$(BIN)/python benchmarks/data_wait.py

gpu: $(VENV)/.test ## Every GPU figure in one run of at most 8 minutes (docs/how-to/gpu.md)
	$(BIN)/python benchmarks/gpu_run.py --device cuda --out outputs/gpu

gpu-smoke: $(VENV)/.test ## The same on the CPU with small sizes
	rm -rf outputs/gpu-smoke
	$(BIN)/python benchmarks/gpu_run.py --device cpu --smoke --out outputs/gpu-smoke

recheck: $(VENV)/.test ## Run one cheap finished cell of results/ again and compare (minutes)
	@if ls results/*/cells.jsonl >/dev/null 2>&1; then $(BIN)/dapg reproduce recheck all --word "$(DRAW)"; \
	else echo "results/ holds no finished cell: nothing to run again"; fi

wheel-check: $(VENV)/.plot ## Build the wheel, install it outside the checkout, run a short pipeline
	bash scripts/check_wheel.sh $(BIN)/python

docs: $(VENV)/.docs $(VENV)/.lint $(VENV)/.test ## Documentation as HTML in docs/_build; links, line lengths and spelling are checked
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/codespell
	$(BIN)/python -m pytest -q tests/test_readme.py -k "lead_somewhere or is_long or exist"

real-video: $(VIDEO) ## Fetch a real street video with apt, Debian's opencv-doc (docs/tutorials/own-footage.md)

$(VIDEO):
	mkdir -p $@.deb
	cd $@.deb && apt-get download opencv-doc && dpkg -x opencv-doc_*.deb .
	mv $@.deb/usr/share/doc/opencv-doc/examples/data/vtest.avi $@
	rm -rf $@.deb

clean: ## Remove the environment and caches, not outputs
	rm -rf $(VENV) dist docs/_build .pytest_cache .mypy_cache .ruff_cache
