"""JAX settings of the process: compilation cache, default dtype and precision. Independent of networks and flags."""

import contextlib
import os
from collections.abc import Iterator

import jax
import platformdirs

from itjax.errors import ComputationError


def keep_compiled_programs() -> None:
    """Enables JAX's persistent compilation cache, which JAX_COMPILATION_CACHE_DIR moves to another folder. For commands."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(platformdirs.user_cache_path("itjax") / "xla"))


def default_dtype() -> str:
    """The default type of matrix products: bfloat16, on CPU float32."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def exact_float32() -> contextlib.AbstractContextManager[None]:
    """Computes float32 matrix products in this block at full precision, also on accelerators.

    These reduce it by default: to one bfloat16 pass on TPU, to TF32 on GPU. Products of bfloat16 arrays are not affected, so
    this also holds when the DiT works in bfloat16: norms, time embedding, colours and speech features stay in float32.
    """
    return jax.default_matmul_precision("highest")


@contextlib.contextmanager
def memory_errors(doing: str, less: str) -> Iterator[None]:
    """Explains that the devices' memory is full. `doing`: what the block does; `less`: what would need less memory.

    Raises:
        ComputationError: if JAX runs out of memory in the block.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        count = jax.device_count()
        devices = f"{count} device{'s' if count > 1 else ''}"
        raise ComputationError(f"{doing}: the memory of the {devices} is full. Less is needed with {less}.") from error
