# attar: `make help` says what there is. Nothing outside this folder is changed, except that
# `make system` (part of every target that builds) installs missing Debian packages when run as root.

# What a stranger may want to change, as `make test TORCH_INDEX=...`:
PYTHON ?= python3#     makes .venv
TORCH_INDEX ?=#        one more package index, say the one that holds pytorch's CPU wheels
JOBS ?= $(shell nproc)

# The one list of Debian packages; `make lint` and `make test-neon` ask for more.
SYSTEM := g++ make cmake ninja-build ccache pkg-config python3 python3-venv python3-dev \
  libcli11-dev libeigen3-dev libhdf5-dev libpcre2-dev libutf8proc-dev libyaml-cpp-dev \
  libssl-dev zlib1g-dev nlohmann-json3-dev libgtest-dev libgmock-dev libbenchmark-dev
SYSTEM_LINT := clang-format clang-tidy
SYSTEM_NEON := g++-aarch64-linux-gnu qemu-user-static

VENV := .venv
PY := $(VENV)/bin/python
# A stamp is named by the content that made it: the same pins never run pip twice.
stamp = $(VENV)/.attar-$(1)-$(shell cat python/requirements-$(1).txt python/constraints.txt | sha256sum | cut -c1-16)
VENV_BUILD := $(call stamp,build)
VENV_TEST := $(call stamp,test)

TEACHER := models/smollm2.gguf
DEMO := demo/smollm2
export CTEST_OUTPUT_ON_FAILURE := 1
# Tests run side by side: waiting threads must not spin for long.
export GOMP_SPINCOUNT := 10000

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo "  TORCH_INDEX=URL  one more package index to take torch from (the CPU wheels, say)"

build: build/build.ninja  ## the program, the Python module and the tests, into build/
	cmake --build build -j $(JOBS)
	@$(PY) python/environment.py link $(VENV) build/python

test: $(VENV_TEST) build  ## everything but the checks that need SmolLM2 or take minutes
	ctest --test-dir build -j $(JOBS) -LE '^(real|effects)$$' --no-tests=error
	@awk 'match($$0, /[0-9]+ skipped/) { n += substr($$0, RSTART, RLENGTH) } \
	  /^\[  SKIPPED \] [0-9]+ test/ { n += $$4 } \
	  END { if (n) print n " cases skipped; grep -i skipped " FILENAME " says for want of what" }' \
	  build/Testing/Temporary/LastTest.log

test-real: $(VENV_TEST) build models  ## the checks that need SmolLM2 or take minutes
	ctest --test-dir build -L '^real$$'

test-neon: SYSTEM += $(SYSTEM_NEON)
test-neon: system  ## the kernels for 64-bit ARM, cross-compiled and run by qemu
	cmake -S tests/kernels/aarch64 -B build/aarch64 -G Ninja -DCMAKE_BUILD_TYPE=Release \
	  --toolchain $(CURDIR)/tests/kernels/aarch64/toolchain.cmake
	cmake --build build/aarch64 -j $(JOBS)
	ctest --test-dir build/aarch64

test-effects: $(VENV_TEST) build models  ## what each pass is worth on SmolLM2: over an hour, needs ../shared
	ctest --test-dir build -L '^effects$$'

demo: demo-tinyworld demo-smollm2  ## the small world's pipeline, then SmolLM2-135M to 4 bits, in demo/

# Nothing is fetched: the world is made here, its teacher stands in the tree.
demo-tinyworld: build/build.ninja
	cmake --build build -j $(JOBS) --target bin/attar
	$(PY) recipes/tinyworld/make_world.py recipes/tinyworld/world
	rm -rf demo/tinyworld
	build/bin/attar run recipes/tinyworld/pipeline.yaml --out demo/tinyworld
	@echo; echo "written:"; find demo/tinyworld -type f | sort | sed 's/^/  /'

demo-smollm2: build/build.ninja $(TEACHER)
	cmake --build build -j $(JOBS) --target bin/attar
	rm -rf $(DEMO)
	build/bin/attar run recipes/smollm2.yaml --out $(DEMO) model=$(TEACHER)
	@echo; echo "written:"; find $(DEMO) -type f | sort | sed 's/^/  /'

bench: $(VENV_TEST) build models  ## kernels alone, and speed in turns with transformers on SmolLM2
	cmake --build build -j $(JOBS) --target benchmarks
	@if [ -x build/bin/kernels_bench ]; then build/bin/kernels_bench; fi
	@if [ -d models/smollm2 ]; then \
	  $(PY) tests/bench/forward.py models/smollm2 recipes/calibration.txt --sequences 4; \
	else echo "skipped: tests/bench/forward.py and mmlu.py need models/smollm2"; fi
	@if [ -d models/smollm2 ] && [ -d $(EVALUATION) ]; then \
	  $(PY) tests/bench/mmlu.py models/smollm2 $(EVALUATION); fi

memory: build  ## peak memory of quantize.gptq and what the plan says: MEMORY="MODEL:SEQUENCES ... --text FILE"
	$(PY) tests/bench/memory.py $(MEMORY)

sanitize: $(VENV_TEST)  ## build with ASan + UBSan into build-dev/ and run the tests there
	cmake --preset dev
	cmake --build --preset dev -j $(JOBS)
	ctest --preset dev -j $(JOBS)

lint: SYSTEM += $(SYSTEM_LINT)
lint: build/build.ninja  ## formatting, and clang-tidy on what changed (TIDY=all: on everything)
	@.ci/lint "$(TIDY)"

clean:  ## remove what was built; .venv, models/ and the compiler cache stay
	rm -rf build build-dev

# --- system packages -------------------------------------------------------------------------

system:
	@command -v dpkg-query >/dev/null || { \
	  echo "This is no Debian; needed, by their Debian names: $(SYSTEM)" >&2; exit 0; }; \
	missing=""; for package in $(SYSTEM); do \
	  case "$$(dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null)" in \
	    installed) ;; *) missing="$$missing $$package";; esac; done; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ]; then \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -q -y --no-install-recommends $$missing; \
	else \
	  echo "Missing system packages. As root:" >&2; \
	  echo "  apt-get install --no-install-recommends$$missing" >&2; \
	  echo "Nothing was changed." >&2; exit 1; \
	fi

# --- the virtual environment -----------------------------------------------------------------

$(VENV_BUILD): | system
$(VENV_TEST): | $(VENV_BUILD)
$(VENV)/.attar-%:
	$(PYTHON) python/environment.py install $(VENV) $(firstword $(subst -, ,$*)) --stamp $@ \
	  $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

# --- configure -------------------------------------------------------------------------------

build/build.ninja: CMakePresets.json $(VENV_BUILD) | system
	cmake --preset release
	@touch $@

# --- SmolLM2-135M-Instruct --------------------------------------------------------------------

$(TEACHER): recipes/fetch_smollm2.py | $(VENV_BUILD)
	$(PY) recipes/fetch_smollm2.py models
	@touch $@

# The folders in Hugging Face form are written by a program beside this checkout, where it is.
FOLDERS := ../shared/tools/make_smollm2.py
EVALUATION := ../shared/data/eval
models: $(TEACHER)
	@if [ -f $(FOLDERS) ]; then $(PY) recipes/fetch_smollm2.py models --folders $(FOLDERS); \
	else echo "skipped: models/smollm2 and models/smollm2-scales (there is no $(FOLDERS))"; fi

.PHONY: help build test test-neon test-real test-effects demo demo-tinyworld demo-smollm2 bench memory sanitize lint clean system models
