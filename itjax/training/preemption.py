"""Signals that end a run after saving it. Several processes agree on the step after which they end."""

import os
import signal
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils


class Preemption:
    """While entered, SIGTERM and SIGINT do not end the process, but make `reached` return True.

    A second SIGINT ends it at once. With several processes, JAX's preemption service handles SIGTERM, whichever process
    receives it, and the first SIGINT ends each process at once: a terminal sends it to all of them, each at a different
    step.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Preemption":
        signals = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
        self._before = {number: signal.signal(number, self._on_signal) for number in signals}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and (self.signal == number or jax.process_count() > 1):
            raise KeyboardInterrupt
        self.signal = number
        # not print: the signal may interrupt a print, whose buffer is not reentrant
        hint = "; press Ctrl-C again to end at once" if number == signal.SIGINT else ""
        os.write(2, f"\nending: this step will be finished and saved{hint}\n".encode())

    def reached(self, step: int) -> bool:
        """Whether the run must end after `step`; the same in all processes."""
        if jax.process_count() == 1:
            return self.signal is not None
        if multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
            return True
        return False
