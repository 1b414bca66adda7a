"""Prepares training data: converts a folder of videos with audio to `itjax.records` (see `__main__`)."""
