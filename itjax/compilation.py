"""Compilation of programs that run once or a few times a video, for which compiling takes longer than running."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")

# As JAX_DISABLE_MOST_OPTIMIZATIONS for all programs. A reference of the small model, on one core: 7.5 s of compilation and
# 0.4 s of encoding become 2.5 s and 0.7 s.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class JitForFewCalls(Generic[P, R]):
    """`jax.jit(function, **options)`, on CPU compiled quickly instead of well."""

    def __init__(self, function: Callable[P, R], **options: Any) -> None:
        self._function, self._options = function, options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the compiled function."""
        return self._jitted(*args, **kwargs)

    def _cache_size(self) -> int:
        """The number of compiled programs, as that of what `jax.jit` returns."""
        return self._jitted._cache_size()

    @cached_property  # not on import: asking for the backend initialises it
    def _jitted(self) -> Any:
        quick: dict[str, Any] | None = QUICK if jax.default_backend() == "cpu" else None
        return jax.jit(self._function, compiler_options=quick, **self._options)
