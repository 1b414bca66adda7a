"""What each of our commands does before JAX runs anything. Knows no network and no flag."""

import os
from pathlib import Path

import jax


def prepare_jax(dtype: str) -> None:
    """A persistent compilation cache, and true float32 products where float32 is asked for."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "itjax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    if dtype == "float32":
        jax.config.update("jax_default_matmul_precision", "highest")
