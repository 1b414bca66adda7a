"""Presets: the sizes of a set of networks and the defaults of its sampler, as Python values."""
