"""Training of a small wav2vec2 speech encoder on the drawn world, whose phonemes and mouths are known."""
