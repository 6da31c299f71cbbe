# The two commands of the README, and what developers use besides.
.PHONY: vm test setup setup-dev lint docs site bench clean

vm: setup
	scripts/first-machine

# All layers; LAYERS="unit or expected" (a pytest -m expression) selects some.
LAYERS ?= unit or expected or libvirt or boot or remote
test: setup-dev lint
	scripts/test "$(LAYERS)" $(PYTEST_ARGS)

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

# The site, in build/site; a page or a link that is not there is an error. And the manual pages.
site: docs
	.venv/bin/pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	.venv/bin/python docs/generate.py --man build/man

# All benchmarks, beside the peers: hours on a slow host. ROUNDS=1 CASES=warm,cold runs some;
# BENCH_ARGS="--merge --held 50" and others: .venv/bin/python -m benchmarks --help.
ROUNDS ?= 5
CASES ?=
bench: setup-dev
	.venv/bin/python -m benchmarks --rounds $(ROUNDS) --cases "$(CASES)" $(BENCH_ARGS)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache dist build
