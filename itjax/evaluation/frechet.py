"""Fréchet distance between two sets of feature vectors, each described by its mean and covariance. Knows no network."""

import numpy as np
from jaxtyping import Float, Num

from itjax.errors import UserError

# N M samples · D features


class Spread:
    """Mean and covariance of feature vectors that are added in pieces: at most about 2·D rows are kept, however many.

    Kept are rows A with A'·A = Σ [1, x]'·[1, x]. Of the triangle of a QR decomposition, the first row is (√N, √N·mean) up to
    its sign, and the rest the root of the scatter around the mean: nothing is squared that would have to be subtracted.
    """

    def __init__(self) -> None:
        self.count = 0
        self._rows: list[Float[np.ndarray, "K D1"]] = []

    def add(self, features: Num[np.ndarray, "N D"]) -> None:
        """Adds vectors.

        Raises:
            UserError: If a feature is not finite.
        """
        if not np.isfinite(features).all():
            raise UserError("features that are not finite have no Fréchet distance: the network's weights may be damaged")
        self.count += len(features)
        self._rows.append(np.concatenate([np.ones((len(features), 1)), features], axis=1, dtype=np.float64))
        self._shorten()

    def join(self, other: "Spread") -> None:
        """Adds all vectors of another set."""
        self.count += other.count
        self._rows += other._rows
        self._shorten()

    def _shorten(self) -> None:
        if self._rows and sum(len(rows) for rows in self._rows) > 2 * self._rows[0].shape[1]:
            self._rows = [self._triangle()]

    def _triangle(self) -> Float[np.ndarray, "K D1"]:
        return np.asarray(np.linalg.qr(np.concatenate(self._rows), mode="r"))

    def moments(self) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, "K D"]]:
        """The mean, and R with R'·R = the covariance (denominator N-1), of at most D rows."""
        triangle = self._triangle()
        return triangle[0, 1:] / triangle[0, 0], triangle[1:, 1:] / np.sqrt(self.count - 1)


def frechet_distance(first: Spread | Num[np.ndarray, "N D"], second: Spread | Num[np.ndarray, "M D"]) -> float:
    """|m₁-m₂|² + tr C₁ + tr C₂ - 2·tr (C₁·C₂)^½: the squared 2-Wasserstein distance of two Gaussians (Heusel et al. 2017).

    The covariances have the denominator N-1. With C = R'·R the last trace is the sum of the singular values of R₁·R₂', so no
    square root of a product of covariances is taken: that is the step which fails if there are fewer samples than features.

    Raises:
        UserError: If a set has fewer than two vectors, or a feature is not finite.
    """
    moments = []
    for features in (first, second):
        spread = features if isinstance(features, Spread) else Spread()
        if not isinstance(features, Spread):
            spread.add(features)
        if spread.count < 2:
            raise UserError(f"a Fréchet distance needs at least two samples in each set, not {spread.count}")
        moments.append(spread.moments())
    (mean, root), (other_mean, other_root) = moments
    between = np.sum((mean - other_mean) ** 2)
    shared = np.linalg.svd(root @ other_root.T, compute_uv=False).sum()
    return max(float(between + np.sum(root**2) + np.sum(other_root**2) - 2 * shared), 0.0)  # rounding can leave less than 0
