"""Weights for published networks whose files cannot be had here: random, of the right names and shapes, sums near one."""

import numpy as np


def random_tensors(shapes):
    """{name: float32 array} for {name: shape}; the same in every run."""
    rng, tensors = np.random.default_rng(0), {}
    for name in sorted(shapes):
        shape = shapes[name]
        if len(shape) > 1:  # a kernel
            values = rng.standard_normal(shape, np.float32) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith(("running_var", ".weight")):
            values = 0.5 + rng.random(shape, np.float32)
        else:
            values = 0.1 * rng.standard_normal(shape, np.float32)
        tensors[name] = values.astype(np.float32)
    return tensors
