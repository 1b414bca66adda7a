"""Compilation of programs that run only once or a few times a video, for which compiling takes longer than running."""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")

# As JAX_DISABLE_MOST_OPTIMIZATIONS for all programs. A reference of the small model, on one core: 7.5 s of compilation and
# 0.4 s of encoding become 2.5 s and 0.7 s.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def jit_for_few_calls(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    """`jax.jit(function, **options)`, on CPU compiled quickly instead of well."""

    @cache  # not on import: asking for the backend initialises it
    def compiled() -> Callable[P, R]:
        quick: dict[str, Any] | None = QUICK if jax.default_backend() == "cpu" else None
        return jax.jit(function, compiler_options=quick, **options)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return compiled()(*args, **kwargs)

    return call
