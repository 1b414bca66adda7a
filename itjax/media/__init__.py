"""Reads images, videos and audio, and writes videos that survive a kill. Independent of the networks."""
