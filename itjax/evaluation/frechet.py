"""Fréchet distance between two sets of feature vectors, each described by its mean and covariance. Knows no network."""

import numpy as np
from jaxtyping import Float, Num

from itjax.errors import UserError

# N samples · D features


def frechet_distance(first: Num[np.ndarray, "N D"], second: Num[np.ndarray, "M D"]) -> float:
    """|m₁-m₂|² + tr C₁ + tr C₂ - 2·tr (C₁·C₂)^½: the squared 2-Wasserstein distance of two Gaussians (Heusel et al. 2017).

    The covariances have the denominator N-1. With C = R'·R the last trace is the sum of the singular values of R₁·R₂', so no
    square root of a product of covariances is taken: that is the step which fails if there are fewer samples than features.

    Raises:
        UserError: If a set has fewer than two vectors, or a feature is not finite.
    """
    for features in (first, second):
        if len(features) < 2:
            raise UserError(f"a Fréchet distance needs at least two samples in each set, not {len(features)}")
        if not np.isfinite(features).all():
            raise UserError("features that are not finite have no Fréchet distance: the network's weights may be damaged")
    means = [features.mean(0, dtype=np.float64) for features in (first, second)]
    roots = [_root(features - mean) for features, mean in zip((first, second), means, strict=True)]
    between = np.sum((means[0] - means[1]) ** 2)
    spread = sum(np.sum(root**2) for root in roots)
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return max(float(between + spread - 2 * shared), 0.0)  # rounding can leave a little less than 0


def _root(centered: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "K D"]:
    """R with R'·R = the covariance, of at most D rows."""
    root = centered / np.sqrt(len(centered) - 1)
    return np.asarray(np.linalg.qr(root, mode="r")) if len(root) > root.shape[1] else root
