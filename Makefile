# Each target installs what it needs, then does its job. Run as root: BPF and network namespaces
# need it, and so does apt-get.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# An editable install is what we want, so no warning of it.
PIP := PYTHONWARNINGS=ignore $(BIN)/pip install -q --disable-pip-version-check
APT := clang llvm bpftool libbpf-dev pkg-config gcc libc6-dev iproute2 python3-dev python3-venv
APT_haproxy := haproxy
APT_nginx := nginx libnginx-mod-stream
APT_nft := nftables
APT_TEST := prometheus tmux $(APT_nft) iptables clang-19 chromium $(APT_haproxy) $(APT_nginx) \
	protobuf-compiler golang-github-prometheus-client-model-dev
APT_LINT := clang-format
APT_BENCH := haproxy chromium g++ prometheus-cpp-dev golang-go golang-github-cilium-ebpf-dev \
	golang-github-prometheus-client-golang-dev
C_FILES := $(wildcard csrc/*/*.[ch] bpf/*.[ch] bpf/*/*.h tests/bpf/*.c)
OURS := $(filter-out %.skel.h,$(C_FILES))
STRICTLY := $(filter-out csrc/tests/%,$(filter csrc/%.c,$(OURS)))

PYTHON_INCLUDE = $(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')
STRICT = -fsyntax-only -std=gnu11 -D_GNU_SOURCE -Ibpf/include -Icsrc -isystem$(PYTHON_INCLUDE) -Wall \
	-Wextra -Wpedantic -Wconversion -Werror
# libbpf options are statement expressions.
STRICT_CLANG = $(STRICT) -Wno-gnu-statement-expression

.PHONY: build demo test sanitize oracle bench bench-smoke bench-compare metrics-table lint format clean
.DELETE_ON_ERROR:

# $(call install,packages): Debian packages that are missing; elsewhere, say which they are. A target
# adds its own to APT, which its prerequisites inherit: all that are missing are named at once.
define install
	@./tools/packages $(1)
endef

build: $(VENV)/.built

$(VENV)/.python: pyproject.toml
	$(call install,$(APT))
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -U pip 'setuptools>=77' wheel build
	touch $@

$(VENV)/.built: $(VENV)/.python setup.py $(wildcard csrc/*.py) $(OURS)
	$(PIP) -e . --group test --group lint
	touch $@

# With a balancer that people know, as Debian has it: make demo WITH=haproxy, nginx or nft
demo: APT += $(APT_$(WITH))
demo: build
	$(call install,$(APT))
	$(BIN)/lblatency demo $(if $(WITH),--with $(WITH))

test: APT += $(APT_TEST)
test: build
	$(call install,$(APT))
	LBLATENCY_REQUIRE_BPF=1 $(BIN)/pytest

# The C tests, and starts, stops and signals under kernel traffic, watched by ASan and TSan: three minutes.
sanitize: build
	$(MAKE) -s -j2 -C csrc/tests VARIANT=asan check
	$(MAKE) -s -j2 -C csrc/tests VARIANT=tsan check
	$(BIN)/python tools/sanitize.py

# 500 random scenarios over real rings, each compared with a model: about ten minutes.
oracle: build
	$(BIN)/python -m tests.oracle --scenarios 500

$(VENV)/.bench: $(VENV)/.built
	$(PIP) --group bench
	touch $@

bench: APT += $(APT_BENCH)
bench: $(VENV)/.bench
	$(call install,$(APT))
	mkdir -p benchmarks/build
	$(BIN)/pytest benchmarks --benchmark-quiet --benchmark-json=benchmarks/build/results.json
	$(BIN)/python -m benchmarks.report

# Each once, in seconds, with whatever peers there are: so that they do not rot.
bench-smoke: $(VENV)/.bench
	$(BIN)/pytest benchmarks --smoke --benchmark-quiet

# The drain of this checkout against that of another, built one: make bench-compare BASE=DIRECTORY
bench-compare: $(VENV)/.bench
	$(call install,valgrind)
	$(BIN)/python -m benchmarks.compare $(BASE)
	$(BIN)/python -m benchmarks.instructions $(BASE)

# README's table of metrics is made of C's table of families.
metrics-table: build
	$(BIN)/python tools/metrics_table.py

lint format: APT += $(APT_LINT)
lint: build
	$(call install,$(APT))
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tools/mutate.py
	$(BIN)/mypy tools/disturb.py
	clang-format --dry-run -Werror $(OURS)
	clang $(STRICT_CLANG) $(STRICTLY)
	gcc $(STRICT) $(STRICTLY)

format: build
	$(call install,$(APT))
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	clang-format -i $(OURS)

clean:
	rm -rf $(VENV) build benchmarks/build dist *.egg-info lblatency/*.so csrc/*/*.skel.h lblatency/_native.c
