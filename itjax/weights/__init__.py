"""Checkpoints: the tables that name every tensor, reading, converting, LoRA."""
