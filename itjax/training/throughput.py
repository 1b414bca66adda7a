"""How fast a run trains, which share of the chips' peak that is, and what memory it takes."""

import contextlib
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import jax

# Dense bfloat16 operations a second of one JAX device, by the first row that fits its kind.
# TPU: cloud.google.com/tpu/docs; a chip is one device, but of a TPU7x each of its two cores is. NVIDIA: the data sheets,
# where the large figures are with sparsity, halved.
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
    """Dense bfloat16 operations a second of one JAX device; None for a kind that is not known, such as a CPU."""
    if "MIG" in device.device_kind:  # a part of a chip
        return None
    return next((peak for kind, peak in PEAKS if re.fullmatch(kind, device.device_kind)), None)


def memory_in_use() -> dict[str, float]:
    """GiB in use, and the most so far, on the fullest of this process's devices that tell; and the process's own most."""
    stats = [found for device in jax.local_devices() if (found := device.memory_stats())]
    names = {"memory/device_gib": "bytes_in_use", "memory/device_peak_gib": "peak_bytes_in_use"} if stats else {}
    memory = {name: max(device[key] for device in stats) / GIB for name, key in names.items()}
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss's unit
    return memory | {"memory/host_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB}


class Meter:
    """Rates between two readings, by the wall clock, without the time within `pause()`.

    Devices compute while the host goes on: wait for the last step's result before a reading, and before a pause. The
    first step compiles: make the meter after it, or run it within a pause.
    """

    def __init__(self, devices: Sequence[jax.Device], clock: Callable[[], float] = time.perf_counter):
        peaks = [peak_flops(device) for device in devices]
        self._peak = sum(peak for peak in peaks if peak) if all(peaks) else None
        self._clock = clock
        self._paused = False
        self._start_over()

    def _start_over(self) -> None:
        self._began, self._left_out = self._clock(), 0.0
        self._steps, self._tokens, self._flops = 0, 0, 0.0

    def step_done(self, tokens: int, flops: float) -> None:
        """Count a step of so many video tokens and operations, over all devices."""
        self._steps, self._tokens, self._flops = self._steps + 1, self._tokens + tokens, self._flops + flops

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """What happens here is not training: validation, samples, checkpoints. A pause within a pause changes nothing."""
        if self._paused:
            yield
            return
        self._paused, began = True, self._clock()
        try:
            yield
        finally:
            self._paused = False
            self._left_out += self._clock() - began

    def read(self) -> dict[str, float]:
        """Steps and tokens a second since the last reading, and the share of the peak where that is known.

        {} without a step.
        """
        seconds = self._clock() - self._began - self._left_out
        steps, tokens, flops = self._steps, self._tokens, self._flops
        self._start_over()
        if not steps or seconds <= 0:
            return {}
        rates = {"speed/steps_per_second": steps / seconds, "speed/tokens_per_second": tokens / seconds}
        return rates | ({"speed/share_of_peak": flops / seconds / self._peak} if self._peak else {})
