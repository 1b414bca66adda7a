"""TeaCache (arXiv 2411.19108): which steps run the blocks. The time features alone decide, so it is known beforehand."""

import numpy as np
from jaxtyping import Bool, Float

ALWAYS_RUN = 5  # first steps


def schedule(
    features: Float[np.ndarray, "steps 6 D"], coefficients: tuple[float, ...], threshold: float
) -> Bool[np.ndarray, " steps"]:
    """True where the blocks run. A step is skipped while Σ poly(mean|e0 - e0'| / mean|e0'|) stays under `threshold`.

    e0 are the blocks' time features and e0' those of the step before, skipped or not; the sum starts anew at each step
    that runs.
    """
    runs, total = [], 0.0
    for i, e0 in enumerate(features):
        if i < ALWAYS_RUN:
            total = 0.0
        else:
            before = features[i - 1]
            total += float(np.polyval(coefficients, np.abs(e0 - before).mean() / np.abs(before).mean()))
        run = i < ALWAYS_RUN or total >= threshold
        total = 0.0 if run else total
        runs.append(run)
    return np.asarray(runs)
