"""TeaCache (arXiv 2411.19108): which steps run the blocks. It depends only on the time features, so it is precomputed."""

import numpy as np
from jaxtyping import Bool, Float

WARMUP_STEPS = 5  # number of first steps that are never skipped


def schedule(
    features: Float[np.ndarray, "steps 6 D"], coefficients: tuple[float, ...], threshold: float
) -> Bool[np.ndarray, " steps"]:
    """True where the blocks run. A step is skipped while Σ poly(mean|e0 - e0'| / mean|e0'|) stays below `threshold`.

    e0 are the blocks' time features and e0' those of the previous step, skipped or not; the sum is reset at each step that
    runs.
    """
    runs, total = [], 0.0
    for i, e0 in enumerate(features):
        if i < WARMUP_STEPS:
            total = 0.0
        else:
            previous = features[i - 1]
            total += float(np.polyval(coefficients, np.abs(e0 - previous).mean() / np.abs(previous).mean()))
        run = i < WARMUP_STEPS or total >= threshold
        total = 0.0 if run else total
        runs.append(run)
    return np.asarray(runs)
