"""What a process sets in JAX: where compiled programs are kept, and how exact products are. Knows no network and no flag."""

import contextlib
import os

import jax
import jax.numpy as jnp
import platformdirs
from jax.typing import DTypeLike


def keep_compiled_programs() -> None:
    """Turns on JAX's persistent compilation cache; JAX_COMPILATION_CACHE_DIR names another folder. For command lines."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(platformdirs.user_cache_path("itjax") / "xla"))


def default_dtype() -> str:
    """What matrix products are computed in where nothing is said: bfloat16, on CPU float32."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def exact_float32(dtype: DTypeLike) -> contextlib.AbstractContextManager[None]:
    """Within this block float32 products are exact to float32, if `dtype` is float32: accelerators round them by default."""
    return jax.default_matmul_precision("highest") if jnp.dtype(dtype) == jnp.float32 else contextlib.nullcontext()
