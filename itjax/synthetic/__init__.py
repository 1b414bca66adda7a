"""Drawn faces that talk: video, sound and prompt with full ground truth, generated from a seed."""
