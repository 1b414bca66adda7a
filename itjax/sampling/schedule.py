"""Flow matching: times of the Euler steps (arXiv 2209.03003), shifted (arXiv 2403.03206, section 5.3.2, eq. 23)."""

import numpy as np
from jaxtyping import Float


def euler_times(steps: int, shift: float) -> Float[np.ndarray, " steps1"]:
    """Times 1000 .. 0 of `steps` Euler steps: t = linspace(1000, 1, steps) and 0; t/1000 -> shift·t/(1 + (shift-1)·t)."""
    t = np.append(np.linspace(1000, 1, steps, dtype=np.float32), np.float32(0)) / np.float32(1000)
    scale = np.float32(shift)
    return (scale * t / (1 + (scale - 1) * t) * np.float32(1000)).astype(np.float32)
