# All set-up and all checks. `make` alone prints what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# uv from the PATH, else a copy of its own in .uv/ (Debian's pip refuses a global install).
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)

.PHONY: help setup demo chat loop test lint types clean

help: ## Show this list
	@grep -hE '^[a-z_]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/python -m pip install --quiet uv

setup: $(if $(findstring .uv,$(UV)),.uv/bin/uv) ## Install the locked dependencies into .venv
	$(UV) sync --locked

demo: setup ## LoRA of the bundled model on the bundled data, two talks at the end: 4 to 6 minutes
	$(UV) run python scripts/train_sft.py --config configs/demo.yaml
	$(UV) run python scripts/compare_chats.py --config configs/demo_compare.yaml

chat: setup ## Talk with the base model and the one that `make demo` trained, in a browser
	$(UV) run python scripts/chat.py --arm name=base --arm name=trained,lora_path=outputs/demo_sft --no_repeat_ngram_size 4

loop: setup ## SFT, corrections of its own questions, and what they do on kinds of tasks never seen, with a report: up to 25 minutes
	$(UV) run python scripts/train_sft.py --config configs/demo.yaml --max_steps 400 --output_dir outputs/loop_sft
	rm -rf outputs/loop_talks outputs/corrections outputs/loop_evaluation
	$(UV) run python scripts/simulate_chats.py --config configs/loop_simulate.yaml
	$(UV) run python scripts/correct_questions.py --transcripts outputs/loop_talks --tasks demo
	$(UV) run python scripts/train_sft.py --config configs/loop_corrected.yaml
	$(UV) run python scripts/evaluate.py --config configs/loop_evaluate.yaml

test: setup ## Run all tests
	OMP_NUM_THREADS=1 $(UV) run pytest -n 3 --dist loadfile

lint: setup ## Check style and format
	$(UV) run ruff check .
	$(UV) run ruff format --check .

types: setup ## Check types
	$(UV) run mypy

clean: ## Remove what runs leave behind, except outputs/
	rm -rf .pytest_cache .mypy_cache .ruff_cache wandb
