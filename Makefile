# From photos to report. `make` lists what there is. A target is a manifest or a result, written last by its stage, so what
# exists is whole; what changes a result is in its path or in a config snapshot that changes only when its content does.
ifeq ($(filter 4.3% 4.4% 4.5% 4.6% 4.7% 4.8% 4.9% 5.%,$(MAKE_VERSION)),)
$(error GNU Make 4.3 or newer is needed, this is $(MAKE_VERSION))
endif
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# Variables: what to study. Each can be given on the command line.
PROFILE ?= laptop##            smoke (minutes), laptop (default), paper (GPU): hyper-parameters, see configs/
DATASET ?= synthetic##         synthetic, folder, webface, celeba or lfw
PHOTOS ?=##                     path of the photos (synthetic needs none)
IDENTITIES ?= 50##              how many to protect, drawn by seed, 20 or more for a claim; or a file with one name a line
SETTING ?= partial##           partial, or full: everyone is protected, whatever number IDENTITIES is
ARMS ?= clean error-min random## arms of the study, or all; `python -m pipeline arms` lists them
MATRIX ?=##                     trials of `make matrix`: core, countermeasures, trainers, shares, full, embeddings, or names (empty: core)
EPSILON ?= 16##                 largest change of a pixel, of 255
SEEDS ?= 0##                   seed of everything drawn; several, as in "0 1 2", for study and matrix
DETECTOR ?= mtcnn##            mtcnn, or scrfd (needs DETECTOR_PACK)
DETECTOR_PACK ?=##              folder of a local insightface pack: for DETECTOR=scrfd, or MATRIX=recropped-scrfd
RECOGNISER_WEIGHTS ?=##         safetensors the recogniser is fine-tuned from (empty: from scratch)
SURROGATE_WEIGHTS ?=##          safetensors the noise's surrogate starts from (empty: from scratch)
CLOAK_AGAINST ?=##              recognisers that exist which arms named cloak… are made against: one or more paths of .safetensors, .onnx
NOISE ?=##                      noise.safetensors of an earlier run: its people's later photos get the same patterns, nothing is searched
LFW ?=##                        folder of LFW with pairs.txt: verification by its protocol, too
REFERENCE ?=##                  insightface recogniser (.onnx): does it know the protected still, can one be built on it? Measured on LFW, too
RUNS ?=##                       finished runs to compare, as named in reports/
SHOW_PEOPLE ?= no##            no, or consented: real faces may stand in the report
DEVICE ?= auto##               auto, cpu, cuda or cuda:N
WORKERS ?= auto##              auto, or how many processes for photos and faces, and arms trained at a time
NPROC ?= 1##                   processes that search noise and train one arm together, through torchrun: a GPU each, or cores
VENV ?= .venv##                where the packages live
PYTHON3 ?= python3##           the Python, 3.11 or newer, that builds VENV
DATA_ROOT ?= data##            where photos, crops and runs are kept
REPORTS_ROOT ?= reports##      where reports are written

PY := $(VENV)/bin/python
PIPELINE := $(PY) -m pipeline
TOGETHER = $(if $(filter 1,$(NPROC)),$(PIPELINE),$(PY) -m pipeline.together --standalone --nproc-per-node $(NPROC) -m -- pipeline)
INSTALLED := $(VENV)/installed.lock

# Named before there is a Python to ask for them; a test holds them to `python -m pipeline arms`.
EVERY_ARM := clean removed random random-samplewise error-max error-max-samplewise error-min error-min-grey error-min-samplewise error-min-released error-min-robust error-min-bound lsp tap tap-robust tap-ensemble fawkes cloak cloak-error-min cloak-tap backdoor
ifeq ($(strip $(ARMS)),all)
# Who protects everybody leaves nobody to train on once they are removed, and a cloak needs recognisers to be made against.
override ARMS := $(filter-out $(if $(filter full,$(SETTING)),removed) $(if $(CLOAK_AGAINST),,cloak%),$(EVERY_ARM))
endif

# Recipes read these from the environment, so that no quote or space in a path is read as shell.
export PROFILE DATASET PHOTOS IDENTITIES SETTING ARMS EPSILON SEEDS DETECTOR DETECTOR_PACK RECOGNISER_WEIGHTS SURROGATE_WEIGHTS SHOW_PEOPLE
ifneq ($(filter matrix,$(MAKECMDGOALS)),)
MATRIX := $(or $(strip $(MATRIX)),core)
endif
export DEVICE WORKERS MATRIX LFW REFERENCE CLOAK_AGAINST NOISE
# glibc asks for memory in pages of 2 MiB, where the system gives them only to who asks: training is 2 to 5 % quicker.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
# Make reads a `$` and what follows as a variable of its own, which most often is empty: another path than the one that was given.
PATHS := PHOTOS IDENTITIES DETECTOR_PACK RECOGNISER_WEIGHTS SURROGATE_WEIGHTS CLOAK_AGAINST NOISE LFW REFERENCE VENV DATA_ROOT REPORTS_ROOT
$(foreach v,$(PATHS),$(if $(findstring $$,$(value $(v))),$(error $(v)=$(value $(v)): allowed is a path without `$$`)))
# These stand in file names, so each is one word without odd characters; what else they may be, `configure` says.
NAMED := PROFILE DATASET IDENTITIES SETTING EPSILON VENV DATA_ROOT REPORTS_ROOT
$(foreach v,$(NAMED),$(if $(filter 1,$(words $($(v)))),,$(error $(v)=$($(v)): allowed is one value without spaces)))
ODD := : ; % ' " | &
ODD_VENV := $(ODD) ( ) < > `
$(foreach v,$(NAMED),$(foreach c,$(or $(ODD_$(v)),$(ODD)),$(if $(findstring $(c),$($(v))),$(error $(v)=$($(v)): allowed is a value without any of $(or $(ODD_$(v)),$(ODD))))))
$(foreach v,VENV DATA_ROOT REPORTS_ROOT,$(if $(filter -%,$($(v))),$(error $(v)=$($(v)): allowed is a value that does not begin with `-`)))
$(foreach v,$(NAMED),$(if $(filter ~%,$($(v))),$(error $(v)=$($(v)): `~` is not read here; write the folder out, $(HOME)/… for yours)))

$(if $(shell echo '$(subst ','"'"',$(NPROC))' | grep -xE '[1-9][0-9]*'),,$(error NPROC=$(NPROC): allowed is a whole number from 1))
$(if $(shell echo '$(subst ','"'"',$(WORKERS))' | grep -xE 'auto|[1-9][0-9]*'),,$(error WORKERS=$(WORKERS): allowed are auto and whole numbers from 1))
$(if $(filter-out 1,$(NPROC)),$(if $(filter cuda:%,$(DEVICE)),$(error DEVICE=$(DEVICE): with NPROC=$(NPROC) each process has a GPU of its own; allowed are auto, cpu and cuda)))
$(if $(wildcard $(IDENTITIES)/.),$(error IDENTITIES=$(IDENTITIES): is a folder; allowed is how many, or a file with one name a line))
# Any other goal would leave what MATRIX asks for undone.
$(if $(strip $(MATRIX)),$(if $(MAKECMDGOALS),$(if $(filter matrix help,$(MAKECMDGOALS)),,$(error MATRIX=$(MATRIX) is for `make matrix`))))

# Several seeds: `study` and `matrix` run once a seed, and a report joins them.
SEVERAL := $(filter-out 0 1,$(words $(SEEDS)))
$(if $(SEVERAL),$(if $(filter-out study matrix help,$(MAKECMDGOALS)),$(error SEEDS=$(SEEDS): several seeds are for study and matrix; give one)))
$(if $(strip $(SEEDS)),,$(error SEEDS is empty: allowed are whole numbers, such as 0 or "0 1 2"))
$(if $(SEVERAL),$(if $(shell echo '$(subst ','"'"',$(SEEDS))' | grep -E '^[0-9]+( +[0-9]+)*$$'),,$(error SEEDS=$(SEEDS): allowed are whole numbers, such as 0 or "0 1 2")))

# Arms side by side, each in a process of its own: on a CPU two processes of one thread beat one of two. A GPU takes one training at a time
# (`turn` in runtime.py), but a stage's start and what is done on the CPU need not wait for it; with NPROC each process has its GPU.
CORES := $(if $(filter auto,$(WORKERS)),$(shell nproc 2>/dev/null || sysctl -n hw.ncpu),$(WORKERS))
# Windows' Linux has NVIDIA's driver in a folder of its own, and no /dev/nvidia0.
GPU_SIGNS := /dev/nvidia[0-9]* /usr/lib/wsl/lib/libcuda.so.1
GPU := $(filter cuda%,$(DEVICE))$(if $(filter auto,$(DEVICE)),$(wildcard $(GPU_SIGNS)))
ONE_AT_A_TIME := $(and $(GPU),$(filter-out 1,$(NPROC)))
JOBS := $(if $(ONE_AT_A_TIME),1,$(shell echo '$(CORES)' $(words $(ARMS)) '$(NPROC)' | awk '{c = $$1 / $$3; n = (c < $$2) ? c : $$2; print ((n >= 1) ? int(n) : 1)}'))
THREADS := $(shell echo '$(CORES)' $(JOBS) '$(NPROC)' | awk '{n = $$1 / ($$2 * $$3); print ((n >= 1) ? int(n) : 1)}')
ifndef MAKE_SHARES_JOBS
MAKEFLAGS += --jobs=$(JOBS)
endif
export MAKE_SHARES_JOBS := 1
# Beside a training, which is what a study waits for, these have the processor that is left; alone they have all of it.
ASIDE := nice -n 10
ON := --device="$$DEVICE" --workers="$$WORKERS"

# Where things are. A synthetic set is rendered at its profile's size, so each profile but laptop has a folder of its own.
COUNT := $(if $(wildcard $(IDENTITIES)),$(shell grep -c '[^[:space:]]' -- '$(IDENTITIES)'),$(IDENTITIES))
# People given by name have a run of their own, whoever else was protected before and however many.
WHO := $(if $(wildcard $(IDENTITIES)),-of$(shell LC_ALL=C sort -u -- '$(IDENTITIES)' | cksum | cut -d' ' -f1))
SUFFIX := $(WHO)$(if $(RECOGNISER_WEIGHTS),-tuned)$(if $(SURROGATE_WEIGHTS),-informed)$(if $(NOISE),-given)
BARE := $(DATASET)-$(PROFILE)-$(SETTING)-id$(COUNT)-eps$(EPSILON)-s
SPACE := $(subst ,, )
RUN := $(BARE)$(subst $(SPACE),-,$(strip $(SEEDS)))$(SUFFIX)
D := $(DATA_ROOT)/$(DATASET)$(if $(filter synthetic,$(DATASET)),$(addprefix -,$(filter-out laptop,$(PROFILE))))
R := $(DATA_ROOT)/runs/$(RUN)
REPORT := $(REPORTS_ROOT)/$(RUN)
NOISY := $(filter-out clean removed,$(ARMS))
AGAINST := $(filter error-max% tap tap-robust tap-ensemble fawkes cloak-tap,$(ARMS))
ENSEMBLE := $(filter tap-ensemble cloak-tap,$(ARMS))
SURROGATES := $(if $(AGAINST),surrogate) $(if $(ENSEMBLE),surrogate-mobilefacenet)
# All arms are trained before any is evaluated, where there is a choice: no long job is left to the end.
EVALUATED := $(ARMS:%=$(R)/%/model/history.jsonl) $(ARMS:%=$(R)/%/metrics.json)
PUBLISHED := $(firstword $(filter error-min error-min-grey error-min-robust error-min-bound error-min-released,$(ARMS)) $(filter tap-robust tap-ensemble,$(ARMS)) $(filter cloak cloak-error-min cloak-tap,$(ARMS)) $(NOISY))
$(if $(filter protect,$(MAKECMDGOALS)),$(if $(PUBLISHED),,$(error ARMS=$(ARMS): nothing to protect with; allowed is an arm with noise, such as error-min)))

# Each stage's own code: an edit to training makes no noise anew.
# An arm of the study is trained without any countermeasure, so their code is none of its own (trials: `training/keys.py`).
# Files alone: a folder is newer as soon as Python caches something in it.
py = $(sort $(foreach d,$(1),$(wildcard pipeline/$(if $(filter %.py,$(d)),$(d),$(d)/*.py))))
CODE_data := $(filter-out pipeline/photos/posted.py,$(call py,photos photos/synthetic))
CODE_align := $(filter-out pipeline/faces/restore.py,$(call py,faces photos/decode.py shards.py onnx_session.py))
CODE_split := pipeline/split.py pipeline/shards.py
CODE_noise := $(filter-out pipeline/noise/protect.py pipeline/noise/describe.py,$(call py,noise models distributed.py shared_memory.py shards.py training/at_hand.py training/faces.py training/learner.py training/replayed.py training/optimiser.py training/shared.py countermeasures/compression.py))
CODE_protect := $(call py,shards.py noise/protect.py noise/table.py faces/restore.py faces/geometry.py evaluation/imperceptibility.py)
CODE_train := $(call py,distributed.py shared_memory.py shards.py training/at_hand.py training/checkpoint.py training/faces.py training/learner.py training/loop.py training/optimiser.py training/replayed.py training/shared.py training/stage.py models)
CODE_evaluate := $(call py,evaluation/stage.py evaluation/accuracy.py evaluation/verification.py evaluation/identification.py \
	evaluation/lfw_protocol.py evaluation/separability.py evaluation/utility.py evaluation/lpips.py evaluation/tested.py models/arcface_onnx.py onnx_session.py)
CODE_report := $(call py,report shards.py split.py noise/arms.py training/trials.py training/keys.py training/matrix.py evaluation/accuracy.py \
	evaluation/tested.py evaluation/summary.py provenance.py evaluation/checks.py evaluation/verdict.py evaluation/orderings.py evaluation/paired.py \
	evaluation/trials.py evaluation/check_names.py evaluation/seeds.py photos/decode.py training/faces.py countermeasures/names.py) $(wildcard pipeline/report/templates/*)

CONFIGS := $(D)/data.yaml $(D)/align.yaml $(R)/config/split.yaml $(R)/config/train.yaml $(R)/config/evaluate.yaml $(R)/config/report.yaml $(NOISY:%=$(R)/config/noise-%.yaml) $(SURROGATES:%=$(R)/config/%.yaml)

.PHONY: help setup data align protect train evaluate report study matrix compare test lint bench clean doctor lock FORCE

help: ## list targets and variables
	@echo 'make study IDENTITIES=50    whole study, from photos to report'; echo; echo 'Targets:'
	@grep -hE '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  %-12s %s\n", $$1, $$2}'
	@echo; echo 'Variables (default):'
	@grep -hE '^[A-Z_0-9]+ \?=.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/ \?= ?/\t/; s/## */\t/' | awk -F'\t' '{gsub(/ +$$/, "", $$2); printf "  %-20s %s%s\n", $$1, $$3, ($$2 == "" ? "" : " (" $$2 ")")}'

# A Python alone is no environment yet: `venv` that was killed, or lacks ensurepip as on Debian without python3-venv, leaves one without pip.
setup: $(INSTALLED) ## build .venv from requirements.lock (does nothing when it is current)

$(INSTALLED): requirements.lock
	@test -x $(PY) || $(PYTHON3) -c 'import sys; sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: name one, as in PYTHON3=python3.12" if sys.version_info < (3, 11) else 0)'
	@$(PY) -m uv --version >/dev/null 2>&1 || $(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON3) -m venv $(VENV)
	@$(PY) -m uv --version >/dev/null 2>&1 || $(PY) -m pip install --quiet --disable-pip-version-check uv
	$(PY) -m uv pip sync --quiet --compile-bytecode --python $(PY) requirements.lock
	@cp requirements.lock $@

$(CONFIGS) &: FORCE | $(INSTALLED)
	@$(PIPELINE) configure --data '$(D)' --run '$(R)' --profile="$$PROFILE" --dataset="$$DATASET" --photos="$$PHOTOS" --identities="$$IDENTITIES" --setting="$$SETTING" --arms="$$ARMS" --epsilon="$$EPSILON" --seeds="$$SEEDS" --detector="$$DETECTOR" --detector-pack="$$DETECTOR_PACK" --recogniser-weights="$$RECOGNISER_WEIGHTS" --surrogate-weights="$$SURROGATE_WEIGHTS" --show-people="$$SHOW_PEOPLE" --matrix="$$MATRIX" --lfw="$$LFW" --reference="$$REFERENCE" --cloak-against="$$CLOAK_AGAINST" --noise="$$NOISE" $(ON)

$(D)/photos.parquet: $(D)/data.yaml $(CODE_data)
	$(PIPELINE) data --data '$(D)' $(ON)

$(D)/aligned/manifest.parquet: $(D)/photos.parquet $(D)/align.yaml $(CODE_align)
	$(PIPELINE) align --data '$(D)' $(ON)

$(R)/split.parquet: $(D)/aligned/manifest.parquet $(R)/config/split.yaml $(CODE_split)
	$(PIPELINE) split --data '$(D)' --run '$(R)'

# Every arm's files are named, not only matched: what a pattern alone makes is not missed by `make` when somebody deletes it.
$(NOISY:%=$(R)/%/noise.safetensors): $(R)/%/noise.safetensors: $(R)/split.parquet $(R)/config/noise-%.yaml $(CODE_noise)
	$(TOGETHER) noise --data '$(D)' --run '$(R)' --arm $* $(ON) --threads $(THREADS)

$(NOISY:%=$(R)/%/protected/manifest.parquet): $(R)/%/protected/manifest.parquet: $(R)/%/noise.safetensors $(CODE_protect)
	$(ASIDE) $(PIPELINE) protect --data '$(D)' --run '$(R)' --arm $* $(ON)

$(AGAINST:%=$(R)/%/noise.safetensors): $(R)/surrogate/model/history.jsonl
$(ENSEMBLE:%=$(R)/%/noise.safetensors): $(R)/surrogate-mobilefacenet/model/history.jsonl

$(SURROGATES:%=$(R)/%/model/history.jsonl): $(R)/%/model/history.jsonl: $(R)/split.parquet $(R)/config/%.yaml $(CODE_train)
	$(TOGETHER) train --data '$(D)' --run '$(R)' --arm $* $(ON) --threads $(THREADS)

$(filter-out $(NOISY:%=$(R)/%/model/history.jsonl),$(ARMS:%=$(R)/%/model/history.jsonl)): $(R)/%/model/history.jsonl: $(R)/split.parquet $(R)/config/train.yaml $(CODE_train)
	$(TOGETHER) train --data '$(D)' --run '$(R)' --arm $* $(ON) --threads $(THREADS)

$(NOISY:%=$(R)/%/model/history.jsonl): $(R)/%/model/history.jsonl: $(R)/%/protected/manifest.parquet $(R)/config/train.yaml $(CODE_train)
	$(TOGETHER) train --data '$(D)' --run '$(R)' --arm $* $(ON) --threads $(THREADS)

# `make` chooses the next job while others run, so an evaluation is none before every arm can be trained.
$(ARMS:%=$(R)/%/metrics.json): | $(NOISY:%=$(R)/%/protected/manifest.parquet)
$(ARMS:%=$(R)/%/metrics.json): $(R)/%/metrics.json: $(R)/%/model/history.jsonl $(R)/config/evaluate.yaml $(CODE_evaluate) $(if $(LFW),$(DATA_ROOT)/lfw/aligned/manifest.parquet)
	$(ASIDE) $(PIPELINE) evaluate --data '$(D)' --run '$(R)' --arm $* --lfw '$(DATA_ROOT)/lfw' $(ON) --threads $(THREADS)

ifneq ($(DATASET),lfw)
$(DATA_ROOT)/lfw/aligned/manifest.parquet: FORCE
	@$(MAKE) align DATASET=lfw PHOTOS="$$LFW" LFW= NOISE= IDENTITIES=1 ARMS='clean error-min' SETTING=full MATRIX= REFERENCE=
endif

$(REPORT)/index.html: $(EVALUATED) $(R)/config/evaluate.yaml $(R)/config/report.yaml $(CODE_report)
	$(PIPELINE) report --data '$(D)' --run '$(R)' --arms="$$ARMS" --output '$(REPORT)' $(ON)

# `$(MAKE)` stands in the recipes themselves, by which make knows what shares its jobs, and goes through it with -n, too.
JOIN_SEEDS = $(if $(SEVERAL),$(PIPELINE) seeds --runs $(foreach s,$(SEEDS),'$(REPORTS_ROOT)/$(BARE)$(s)$(SUFFIX)') --output '$(REPORT)')

# All is written whole or not at all: a request that is refused, Ctrl-C, or a stage that finds another `make` at it, takes nothing away.
.PRECIOUS: $(CONFIGS) $(D)/photos.parquet $(D)/aligned/manifest.parquet $(R)/split.parquet $(SURROGATES:%=$(R)/%/model/history.jsonl) $(REPORT)/index.html $(ARMS:%=$(R)/%/noise.safetensors) $(ARMS:%=$(R)/%/protected/manifest.parquet) $(ARMS:%=$(R)/%/model/history.jsonl) $(ARMS:%=$(R)/%/metrics.json)

data: $(D)/photos.parquet ## the photos of DATASET
align: $(D)/aligned/manifest.parquet ## faces found and aligned: crops, manifest, rejects
protect: $(R)/$(PUBLISHED)/protected/manifest.parquet ## everything up to protected crops and photos of IDENTITIES
	@$(PIPELINE) show --data '$(D)' --run '$(R)' --arm $(PUBLISHED)
train: $(ARMS:%=$(R)/%/model/history.jsonl) ## the downstream recogniser of each arm
evaluate: $(EVALUATED) ## each recogniser's metrics on clean test photos
report: $(REPORT)/index.html ## the HTML report of what was evaluated
study: $(if $(SEVERAL),,$(REPORT)/index.html) ## all of the above, chained; prints the verdict and the report's path
	$(if $(SEVERAL),for seed in $(SEEDS); do $(MAKE) $@ SEEDS=$$seed; done)
	$(JOIN_SEEDS)
	@$(PIPELINE) verdict --output '$(REPORT)'
matrix: $(if $(SEVERAL),,$(EVALUATED)) ## the study, and MATRIX's other trainers and countermeasures on every arm
	$(if $(SEVERAL),for seed in $(SEEDS); do $(MAKE) $@ SEEDS=$$seed; done)
	$(if $(SEVERAL),,$(PIPELINE) matrix --data '$(D)' --run '$(R)' --arms="$$ARMS" --matrix="$$MATRIX" --jobs $(if $(GPU),$(shell echo '$(CORES)' | awk '{print ($$1 < 3) ? $$1 : 3}'),$(CORES)) $(ON))
	$(if $(SEVERAL),$(JOIN_SEEDS),$(PIPELINE) report --data '$(D)' --run '$(R)' --arms="$$ARMS" --output '$(REPORT)' $(ON))
	@$(PIPELINE) verdict --output '$(REPORT)'

compare: $(INSTALLED) ## two or more finished runs in one page, RUNS="run1 run2" as named in reports/
	@$(PIPELINE) compare --runs $(RUNS:%='$(REPORTS_ROOT)/%') --output '$(REPORTS_ROOT)/comparison'
# Two processes, a file each at a time, since tests of one file may build on one another; the files that take longest first.
SLOWEST := tests/test_chain.py tests/test_paper_profile.py tests/distributed/test_torchrun.py
test: $(INSTALLED) ## all tests (at most 15 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(SLOWEST) tests
lint: $(INSTALLED) ## ruff and pyright
	$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m pyright
bench: $(INSTALLED) ## benchmarks: every row as a ratio in pairs of runs, compared with the saved baseline; a page in REPORTS_ROOT/bench
	$(PY) -m benchmarks --check --output '$(REPORTS_ROOT)/bench'
clean: ## remove the generated files of this run (photos and crops stay)
	rm -rf -- '$(R)' '$(REPORT)'
doctor: $(INSTALLED) ## say what this machine has and what is missing
	@$(PIPELINE) doctor $(ON)
lock: ## resolve requirements.lock anew from pyproject.toml
	$(PY) -m uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url -o requirements.lock
FORCE:
