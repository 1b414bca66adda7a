"""Drawn faces that talk: video, sound and prompt of which everything is known, from a seed."""
