# plaudit: two commands are enough, `make run` and `make test`; each prints what it installs before it does.

SHELL := bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/pip install --disable-pip-version-check --progress-bar off -c constraints.txt torch==2.13.0
# What is being downloaded and how large it is, a line each; all of it where pip fails.
SHOWN := 2>&1 | tee .make/pip.log | sed -un 's/^ *Downloading \(.*\)/  downloading \1/p; s/^ *Using cached \(.*\)/  from the cache: \1/p; s/^\(Installing collected packages\).*/  \1 .../p'; \
	[ "$${PIPESTATUS[0]}" -eq 0 ] || { tail -20 .make/pip.log >&2; exit 1; }
# Three at a time fill what two leave of two cores while they wait.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile
TO_RUN := bubblewrap libseccomp2 g++
TO_TEST := redis-server
TO_EXTEND := qemu-system-x86 mmdebstrap squashfs-tools busybox-static cpio runc slurmctld slurmd slurm-client munge
GPTQMODEL := gptqmodel==7.7.0 optimum==2.3.0 logbar==0.4.15 tokenicer==0.0.14 device-smi==0.5.7 pypcre==0.6.4 \
	threadpoolctl==3.8.0 defuser==0.0.28 torchao==0.18.0
MINI_DATA := $(or $(PLAUDIT_DATA),../shared/data)

.PHONY: help run up test extended quick check coverage docs format clean screenshots bench reproduce-mini tables toolchains
.DELETE_ON_ERROR:

help:  ## this text
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 26
	@echo 'make run ONCE=1 stops after its table; DATA=FOLDER takes a HumanEval problem; FLAGS="--port 8000" go to plaudit up'

run: .make/run  ## start everything on a free port, rank eight programs, serve until Ctrl-C
	@exec setpriv --pdeathsig TERM $(BIN)/python examples/first_light.py $(if $(ONCE),--once) $(if $(DATA),--data $(DATA)) -- --port 0 $(FLAGS)

up: .make/run  ## start everything on port 8000, and nothing else
	@exec $(BIN)/plaudit up $(FLAGS)

test:  ## lint, format, types, import laws and every test but the extended ones
	@$(MAKE) --no-print-directory -j2 .make/toolchains check
	$(PYTEST) -m 'not extended' $(ARGS)

extended: .make/extended .make/browser .make/toolchains  ## clusters, rolling deployments, containers, virtual machines, crowds: ten seconds or more each
	@.ci/need $(TO_EXTEND) || echo 'tests whose tools are missing are skipped' >&2
	$(PYTEST) -m extended $(ARGS)

quick: check  ## the same without the tests that take minutes
	$(PYTEST) -m 'not slow and not extended' $(ARGS)

check: .make/test  ## lint, format, types, import laws
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet . || { echo 'run: make format' >&2; exit 1; }
	$(BIN)/mypy
	$(BIN)/mypy examples/*.py
	MYPYPATH=client:tests:benchmarks:benchmarks/studies $(BIN)/mypy --explicit-package-bases benchmarks
	$(BIN)/lint-imports

coverage: .make/test  ## which lines the unit tests run, as a table and in build/coverage; ARGS for other tests
	$(BIN)/coverage run -m pytest -q -m 'not extended' $(or $(ARGS),tests/unit)
	$(BIN)/coverage combine -q
	$(BIN)/coverage html -q && $(BIN)/coverage report --skip-covered --sort=cover

docs: .make/test  ## the documentation as a site, in build/docs; every link in it is checked
	PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo 'build/docs is the site; to read it: $(BIN)/python -m http.server -d build/docs 8001'

format: .make/test  ## the code as ruff formats it
	$(BIN)/ruff format .

clean:  ## remove what was built and cached here; the environment and the toolchains stay
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build .coverage*
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

screenshots: .make/browser  ## docs/images: the page, desktop and phone, light and dark (two minutes)
	@$(BIN)/python .ci/screenshots

bench: .make/test  ## every benchmark, each printing its table; the studies (hours) are run one at a time
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

reproduce-mini: .make/test  ## train models/plaudit-mini again (an hour) and compare; without ../shared/data from packages
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

tables: .make/test  ## both papers' tables in form, from the small models of this repository (docs/training.md)
	nice $(BIN)/plaudit-train iterate training/recipes/papers-loop.toml --run runs/papers/loop
	@if [ -e "$(MINI_DATA)/samples.python.jsonl.gz" ]; then \
	  nice $(BIN)/plaudit-train all training/recipes/papers-mini.toml --run runs/papers/mini --data "$(MINI_DATA)" \
	    && $(BIN)/plaudit-train table runs/papers/mini --out runs/papers/best-of-n; \
	else echo 'data: $(MINI_DATA) is not there: no table of the shipped checkpoint' >&2; fi
	$(BIN)/plaudit-train table runs/papers/loop --out runs/papers/policies
	@cat runs/papers/loop/iterate/seed-1/self_training/report.md
	$(BIN)/plaudit-train cost runs/papers/loop

toolchains: .venv/bin/python  ## compilers and interpreters of the sandbox's languages; quick when they are there
	@PYTHON=$(BIN)/python .ci/toolchains

# What a command needs, once: a stamp each, older than what it was made from.

.make/run: .venv/bin/python pyproject.toml client/pyproject.toml constraints.txt .ci/need Makefile
	@.ci/need $(TO_RUN)
	@echo 'installing into .venv: plaudit and plaudit-server[api,scorer,executor], torch included (some minutes the first time)'
	@mkdir -p .make
	@$(PIP) -e client -e '.[api,scorer,executor]' $(SHOWN)
	@touch $@

.make/test: .venv/bin/python pyproject.toml client/pyproject.toml constraints.txt .ci/need .ci/extract Makefile
	@.ci/need $(TO_RUN) $(TO_TEST)
	@.ci/extract
	@echo 'installing into .venv: plaudit and plaudit-server[dev], torch included (some minutes the first time)'
	@mkdir -p .make
	@$(PIP) -e client -e '.[dev]' $(SHOWN)
	@touch $@

.make/extended: .make/test
	@echo 'installing into .venv: plaudit-server[ray], 240 MB more'
	@$(PIP) -e '.[ray]'
	@echo 'installing into .venv: torchao, and gptqmodel, which names a newer torch than constraints.txt and works with this one'
	@$(BIN)/pip install -q --upgrade 'setuptools>=80' wheel
	@$(BIN)/pip install -q --no-deps --no-build-isolation $(GPTQMODEL)
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
