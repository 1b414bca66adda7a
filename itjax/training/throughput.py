"""Training speed, model FLOPs utilisation, and memory use."""

import contextlib
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import jax

# Peak dense bfloat16 FLOP/s of one JAX device; the first row that matches its kind counts.
# TPU: cloud.google.com/tpu/docs; a device is a chip, except for TPU7x, where it is one of the chip's two cores. NVIDIA: data
# sheets; figures with sparsity are halved.
PEAKS = (
    (r"TPU v4", 275e12),
    (r"TPU v5 lite|TPU v5e", 197e12),
    (r"TPU v5|TPU v5p", 459e12),
    (r"TPU v6 lite|TPU v6e", 918e12),
    (r"TPU7x", 2307e12 / 2),
    (r".*\bGB200\b.*", 2500e12),
    (r".*\bB200\b.*", 2250e12),
    (r".*\b(H100|H200) NVL\b.*", 835e12),
    (r".*\bH100 PCIe\b.*", 756e12),
    (r".*\b(H100|H200|H800|GH200)\b.*", 989e12),
    (r".*\bH20\b.*", 148e12),
    (r".*\b(A100|A800)\b.*", 312e12),
    (r".*\bL40S\b.*", 362e12),
    (r".*\bA30\b.*", 165e12),
    (r".*\bA10\b.*", 125e12),
    (r".*\bL4\b.*", 121e12),
)
GIB = 2**30


def peak_flops(device: jax.Device) -> float | None:
    """Peak dense bfloat16 FLOP/s of one JAX device; None for an unknown kind, such as a CPU."""
    if "MIG" in device.device_kind:  # a part of a chip
        return None
    return next((peak for kind, peak in PEAKS if re.fullmatch(kind, device.device_kind)), None)


def memory_in_use() -> dict[str, float]:
    """GiB in use and peak GiB, the maximum over this process's devices that report it, and peak GiB of the process."""
    stats = [found for device in jax.local_devices() if (found := device.memory_stats())]
    names = {"memory/device_gib": "bytes_in_use", "memory/device_peak_gib": "peak_bytes_in_use"} if stats else {}
    memory = {name: max(device[key] for device in stats) / GIB for name, key in names.items()}
    unit = 1 if sys.platform == "darwin" else 1024  # bytes per unit of ru_maxrss
    return memory | {"memory/host_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB}


class Meter:
    """Measures rates between two readings by wall-clock time, excluding time in `pause()`.

    Dispatch is asynchronous: wait for the last step's result before a reading and before a pause. The first step includes
    compilation: create the meter after it, or run it in a pause.
    """

    def __init__(self, devices: Sequence[jax.Device], clock: Callable[[], float] = time.perf_counter):
        peaks = [peak_flops(device) for device in devices]
        self._peak = sum(peak for peak in peaks if peak) if all(peaks) else None
        self._clock = clock
        self._paused = False
        self._reset()

    def _reset(self) -> None:
        self._start, self._paused_seconds = self._clock(), 0.0
        self._steps, self._tokens, self._flops = 0, 0, 0.0

    def step_done(self, tokens: int, flops: float) -> None:
        """Counts a step with its video tokens and FLOPs over all devices."""
        self._steps, self._tokens, self._flops = self._steps + 1, self._tokens + tokens, self._flops + flops

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Excludes the time of validation, samples and checkpoints. Nested pauses have no effect."""
        if self._paused:
            yield
            return
        self._paused, start = True, self._clock()
        try:
            yield
        finally:
            self._paused = False
            self._paused_seconds += self._clock() - start

    def read(self) -> dict[str, float]:
        """Steps and tokens per second since the last reading, and the fraction of peak FLOP/s if known; {} if no step."""
        seconds = self._clock() - self._start - self._paused_seconds
        steps, tokens, flops = self._steps, self._tokens, self._flops
        self._reset()
        if not steps or seconds <= 0:
            return {}
        rates = {"speed/steps_per_second": steps / seconds, "speed/tokens_per_second": tokens / seconds}
        return rates | ({"speed/share_of_peak": flops / seconds / self._peak} if self._peak else {})
