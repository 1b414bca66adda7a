"""Prepares the networks' conditioning inputs from media: text, speech features, person masks."""
