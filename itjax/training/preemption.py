"""Signals that ask a run to end: it saves first. On many processes all of them agree on the step at which they do."""

import os
import signal
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils


class Preemption:
    """While entered, SIGTERM and SIGINT are asked for with `reached` instead of ending the process.

    A second SIGINT ends it at once. With several processes SIGTERM is heard by JAX's own service, whichever of them gets
    it, and the first SIGINT ends all at once: a terminal sends it to each of them at a step of its own.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Preemption":
        signals = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
        self._before = {number: signal.signal(number, self._heard) for number in signals}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and (self.signal == number or jax.process_count() > 1):
            raise KeyboardInterrupt
        self.signal = number
        # not print: the signal may have come amid one, and its buffer cannot be entered twice
        again = "; Ctrl-C again ends it at once" if number == signal.SIGINT else ""
        os.write(2, f"\nasked to end: this step is finished and saved{again}\n".encode())

    def reached(self, step: int) -> bool:
        """Whether the run is to end after `step`; the same in all processes."""
        if jax.process_count() == 1:
            return self.signal is not None
        if multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
            return True
        return False
