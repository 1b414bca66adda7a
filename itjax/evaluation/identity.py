"""Identity over time, from what is seen again of a drawn face's factors, or from embeddings of a recognition network."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

# F frames · N frames of the source · D width of an embedding


def factors_seen(factors: Mapping[str, Bool[np.ndarray, " F"]], found: Bool[np.ndarray, " F"]) -> Float[np.ndarray, " F"]:
    """Fraction of a drawn person's factors (hair, glasses, ...) seen again per frame; 0 where the face is not found.

    A stranger's face is not found as the person's: if such frames did not count, a video of somebody else would be perfect.
    """
    share = np.mean([np.asarray(seen, np.float64) for seen in factors.values()], axis=0)
    return np.where(found, share, 0.0)


def similarity(embeddings: Float[np.ndarray, "F D"], source: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " F"]:
    """Cosine of each frame's embedding with the source's mean embedding; NaN where an embedding is NaN (no face).

    Raises:
        ValueError: If the source has no embedding.
    """
    known = source[np.isfinite(source).all(1)]
    if not len(known):
        raise ValueError("the source has no embedding: no face was found in it")
    unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return unit(np.asarray(embeddings, np.float64)) @ unit(unit(known).mean(0))
