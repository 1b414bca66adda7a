"""Checkpoints: tables of tensor names, reading, conversion, LoRA."""
