# plaudit: two commands are enough, `make run` and `make test`; each prints what it installs before it does.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt torch==2.13.0
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
TO_RUN := bubblewrap libseccomp2 g++
TO_TEST := redis-server
MINI_DATA := $(or $(PLAUDIT_DATA),../shared/data)

.PHONY: help run up test extended quick check format clean screenshots bench reproduce-mini toolchains
.DELETE_ON_ERROR:

help:  ## this text
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 26
	@echo 'make run ONCE=1 stops after its table; DATA=FOLDER takes a HumanEval problem; FLAGS="--port 8000" go to plaudit up'

run: .make/run  ## start everything on a free port, rank eight programs, serve until Ctrl-C
	@exec setpriv --pdeathsig TERM $(BIN)/python examples/first_light.py $(if $(ONCE),--once) $(if $(DATA),--data $(DATA)) -- --port 0 $(FLAGS)

up: .make/run  ## start everything on port 8000, and nothing else
	@exec $(BIN)/plaudit up $(FLAGS)

test: .make/test .make/toolchains check  ## lint, format, types, import laws and every test but the extended ones
	$(PYTEST) -m 'not extended' $(ARGS)

extended: .make/test .make/browser .make/toolchains  ## the tests that take minutes each: clusters, containers, virtual machines
	$(PYTEST) -m extended $(ARGS)

quick: check  ## the same without the tests that take minutes
	$(PYTEST) -m 'not slow and not extended' $(ARGS)

check: .make/test  ## lint, format, types, import laws
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet . || { echo 'run: make format' >&2; exit 1; }
	$(BIN)/mypy
	$(BIN)/mypy examples/*.py
	$(BIN)/lint-imports

format: .make/test  ## the code as ruff formats it
	$(BIN)/ruff format .

clean:  ## remove what was built and cached here; the environment and the toolchains stay
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

screenshots: .make/browser  ## docs/images: the page, desktop and phone, light and dark (two minutes)
	@$(BIN)/python .ci/screenshots

bench: .make/test  ## every benchmark, each printing its table; the studies (hours) are run one at a time
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

reproduce-mini: .make/test  ## train models/plaudit-mini again (half an hour) and compare; without ../shared/data from packages
	@if [ -e "$(MINI_DATA)/samples.python.jsonl.gz" ]; then \
	  echo 'data: $(MINI_DATA), what models/plaudit-mini was trained on'; \
	  nice $(BIN)/plaudit-train all training/recipes/mini.toml --run runs/mini --publish runs/mini/published \
	    && $(BIN)/python -m training.evaluation.reproduce models/plaudit-mini runs/mini/published; \
	else \
	  echo 'data: $(MINI_DATA) is not there, so packages (reasoning-gym by pip, and the standard library): a checkpoint'; \
	  echo 'of training/recipes/mini-packages.toml, in runs/mini-packages/checkpoint, without sampled programs and a report'; \
	  $(BIN)/python -m training.data.fetch runs/mini-packages/data && PLAUDIT_DATA=runs/mini-packages/data \
	    nice $(BIN)/plaudit-train all training/recipes/mini-packages.toml --run runs/mini-packages; \
	fi

toolchains: .venv/bin/python  ## compilers and interpreters of the sandbox's languages; quick when they are there
	@PYTHON=$(BIN)/python .ci/toolchains

# What a command needs, once: a stamp each, older than what it was made from.

.make/run: .venv/bin/python pyproject.toml client/pyproject.toml constraints.txt .ci/need Makefile
	@.ci/need $(TO_RUN)
	@echo 'installing into .venv: plaudit and plaudit-server[api,scorer,executor], torch included (some minutes the first time)'
	@$(PIP) -e client -e '.[api,scorer,executor]'
	@mkdir -p .make && touch $@

.make/test: .venv/bin/python pyproject.toml client/pyproject.toml constraints.txt .ci/need .ci/extract Makefile
	@.ci/need $(TO_RUN) $(TO_TEST)
	@.ci/extract
	@echo 'installing into .venv: plaudit and plaudit-server[dev], torch included (some minutes the first time)'
	@$(PIP) -e client -e '.[dev]'
	@mkdir -p .make && touch $@

.make/browser: .make/test
	@.ci/need chromium || [ "$$(id -u)" -ne 0 ]  # who cannot install it skips the tests of the page
	@echo 'installing into .venv: playwright (40 MB, its driver; the browser is Debian'"'"'s) and axe-core'
	@$(PIP) -e '.[browser]'
	@touch $@

.make/toolchains: .venv/bin/python sandbox/language_specs.py .ci/need .ci/toolchains .ci/science.txt
	@PYTHON=$(BIN)/python .ci/toolchains || [ "$$(id -u)" -ne 0 ]  # who cannot install skips those tests
	@mkdir -p .make && touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'plaudit needs Python 3.11 or newer' >&2; exit 3; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/need python3-venv
	@$(PYTHON) -m venv .venv
