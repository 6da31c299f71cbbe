# The README's two commands (vm, test), and targets for developers.
.PHONY: vm test test-all setup setup-dev lint docs site bench clean

vm: setup
	scripts/first-machine

# All layers without slow tests; LAYERS="unit or expected" (a pytest -m expression) selects some.
LAYERS ?= unit or expected or libvirt or boot or remote or hosts or cloud
test: setup-dev lint
	scripts/test "$(LAYERS)" $(PYTEST_ARGS)

# Slow tests too: other hosts, and tests that take too long for every change. Takes hours.
test-all: setup-dev lint
	scripts/test --all "$(LAYERS)" $(PYTEST_ARGS)

setup:
	scripts/setup

setup-dev:
	scripts/setup --dev

lint:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

docs:
	.venv/bin/python docs/generate.py

# The site in build/site, and the manual pages. A missing page or a broken link is an error.
site: docs
	.venv/bin/pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	.venv/bin/python docs/generate.py --man build/man

# All benchmarks, with the peers: hours on a slow host. ROUNDS=1 CASES=warm,cold runs some.
# BENCH_ARGS="--merge --held 50" passes options; see .venv/bin/python -m benchmarks --help.
ROUNDS ?= 5
CASES ?=
bench: setup-dev
	.venv/bin/python -m benchmarks --rounds $(ROUNDS) --cases "$(CASES)" $(BENCH_ARGS)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache dist build
