# make demo    set up, then export, prove, ask, measure and report on a real model
# make test    set up, then run every test (the one command of CI)
# make rigs    what the stand-ins for devices need, as root with apt: adb, qemu, a cross compiler
# make check   format, lint, types, layers, fast tests, docs that are true: about a minute

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CACHE := $(or $(EDGE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/edge)
LLAMA_CPP := llama_cpp_python-0.3.36.tar.gz
READY := $(VENV)/.ready
NODE := tests/interop/node/node_modules/.package-lock.json
export ORT_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Devices to reach; arm64 programs; the runtime pack; a whole arm64 machine.
RIGS := adb mksh busybox-static openssh-client openssh-server
RIGS += qemu-user-static binfmt-support
RIGS += g++-aarch64-linux-gnu cmake ninja-build
RIGS += qemu-system-arm ipxe-qemu e2fsprogs
# Holds the programs of tools where the kernel has no Landlock.
RIGS += bubblewrap
# To look at pages.
RIGS += chromium

.PHONY: setup demo test rigs optimum check fast fix docs clean

setup: $(READY) $(CACHE)/sources/$(LLAMA_CPP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first and by its exact version: asked for by range, pip would choose a CUDA build.
$(READY): $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet $(shell grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# The converter comes from the very sources that the runtime was built from.
$(CACHE)/sources/$(LLAMA_CPP): | $(READY)
	@mkdir -p $(@D)
	$(BIN)/pip download --quiet --no-deps --no-binary llama-cpp-python -c constraints.txt -d $(@D) llama-cpp-python

# Programs from npm that must run what edge writes; without node their tests are left out, and say so.
$(NODE): tests/interop/node/package-lock.json
	@if command -v npm >/dev/null; then cd tests/interop/node && npm ci --ignore-scripts --no-audit --no-fund --silent; \
	else echo "npm is not installed: the tests with programs from npm are left out"; fi

rigs:
	@if dpkg -s $(RIGS) >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(RIGS) >/dev/null; } \
	  || echo "apt could not install what stand-ins for devices need: their tests are left out and say why"; \
	else echo "not root, or no apt here: tests with stand-ins for devices are left out; they need $(RIGS)"; fi

BUNDLE := out/SmolLM2-135M-Instruct-gguf-q4_k_m

demo: setup
	$(BIN)/edge export smollm2 --format gguf --quant 4bit -o out --replace
	$(BIN)/edge chat $(BUNDLE) -p "What is the capital of France?" --temperature 0
	$(BIN)/edge bench $(BUNDLE) --repeats 3 --force -o out/run.json
	$(BIN)/edge report out/run.json -o report.html
	@echo "open report.html in a browser; talk to it with: $(BIN)/edge chat $(BUNDLE)"

# The fallback exporter, in its own folder beside this environment.
optimum: setup
	@$(BIN)/edge doctor --install optimum >/dev/null || echo "optimum could not be installed: its test is left out"

test: setup rigs optimum $(NODE) check
	$(BIN)/pytest -q -m "runtime or rig" -n 2 --durations=20

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -q -m "not runtime and not rig" -n auto --dist loadfile

fix: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf out build dist report.html
