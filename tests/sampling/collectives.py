"""What a compiled program moves between devices, read from its text."""

import math
import re

MIB = 2**20
BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1, "u8": 1}


def collectives(hlo: str) -> dict[str, dict[str, float]]:
    """{computation: {kind of collective: MiB of its results on a device}} of a compiled program's text."""
    found: dict[str, dict[str, float]] = {}
    for computation in re.split(r"\n(?=%|ENTRY)", hlo):
        name = computation.split(" ", 1)[0]
        pattern = r"= (.*?) (all-gather|all-to-all|all-reduce|collective-permute|reduce-scatter)(?:-start)?\("
        for result, kind in re.findall(pattern, computation):
            sizes = re.findall(r"(\w+)\[([\d,]*)\]", result)
            size = sum(BYTES[dtype] * math.prod(map(int, shape.split(",") if shape else ())) for dtype, shape in sizes)
            kinds = found.setdefault(name, {})
            kinds[kind] = kinds.get(kind, 0.0) + size / MIB
    return found
