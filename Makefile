# Two commands for a fresh machine: `make demo` and `make test`. Each makes a virtual environment of its own first.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch
BIN = $(VENV)/bin
RECORDINGS = tests/recordings

.PHONY: demo test lint install

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

# the checkpoint is a toy with random weights: every part runs, and the picture is noise
demo: install
	$(BIN)/python infer.py \
		--ckpt_dir $(RECORDINGS)/checkpoint/Wan2.1-I2V-14B-480P \
		--wav2vec_dir $(RECORDINGS)/checkpoint/chinese-wav2vec2-base \
		--infinitetalk_dir $(RECORDINGS)/checkpoint/InfiniteTalk/single/infinitetalk.safetensors \
		--image $(RECORDINGS)/media/face.png --audio $(RECORDINGS)/media/b44100.wav --prompt "a man is talking" \
		--mode streaming --frame_num 33 --sample_steps 4 --save_file demo.mp4
	@echo "demo.mp4 has the speech in it. Its picture is noise: the demo's tiny checkpoint has random weights."

test: install lint
	$(BIN)/python -m pytest -n auto --dist loadgroup

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
