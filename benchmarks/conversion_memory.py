"""Measures the host memory of a conversion: generates a checkpoint of a few GB, converts it there and back, and compares.

    python benchmarks/conversion_memory.py --dir /tmp

Each step runs in its own process. The peak should stay near the baseline (the same program on the tiny checkpoint) plus
the largest stack of layers, independent of the size of the checkpoint. This file imports the package only inside its steps,
because a child process inherits the peak memory of its parent.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "recordings" / "checkpoint"

PRESET = '''"""Networks of the published shape, thinner and with fewer layers."""

from dataclasses import replace

from itjax.configs.infinitetalk_14b import PRESET as FULL
from itjax.config import Networks
from itjax.config import ClipSizes
from itjax.config import DiTSizes
from itjax.config import Umt5Sizes
from itjax.config import VaeSizes
from itjax.config import Wav2Vec2Sizes

PRESET = replace(
    FULL,
    name="memory",
    networks=Networks(
        dit=DiTSizes(dim=1536, ffn_dim=8960, num_heads=12, num_layers=14),
        vae=VaeSizes(dim=48),
        umt5=Umt5Sizes(vocabulary=65536, width=1024, attention_width=1024, mlp=2816, layers=8, heads=16),
        clip=ClipSizes(layers=6),
        wav2vec2=Wav2Vec2Sizes(layers=6),
    ),
)
'''
DTYPES = {"dit": "float32", "vae": "float32", "umt5": "bfloat16", "clip": "float16", "wav2vec2": "float32"}  # one of each


def generate(folder: Path, preset: Path) -> None:
    """Writes official files with random numbers, one tensor in memory at a time."""
    import shutil

    from itjax import configs
    from itjax.weights import official
    from itjax.weights.convert import PICKLE_FILES, audio_names
    from itjax.weights.lazy import LazyTensor
    from itjax.weights.mapping import torch_shapes
    from itjax.weights.specs import network_specs
    from itjax.weights.torch_writer import write_pth, write_safetensors, write_sharded

    specs = network_specs(configs.named(str(preset)).networks)
    wan, wav2vec2, infinitetalk = (folder / place for place in (official.WAN, official.WAV2VEC2, official.INFINITETALK))
    for place in (wav2vec2, infinitetalk.parent):
        place.mkdir(parents=True)
    shutil.copytree(TINY / official.WAN / official.TOKENIZER, wan / official.TOKENIZER)
    lazy = lambda name, shape, kind: LazyTensor(shape, dtype(kind), lambda _: draw(name, shape, kind))
    tensors = {}
    for network, part in specs.items():
        shapes = torch_shapes(part.table, part.abstract)
        kind = DTYPES[network]
        tensors[network] = {name: lazy(name, shape, kind) for name, shape in shapes.items()}
    last = f"visual.transformer.{specs['clip'].abstract['blocks']['norm1']['scale'].shape[0]}"
    extra = {f"{last}.mlp.0.weight": (5120, 1280), "textual.token_embedding.weight": (50000, 1024), "log_scale": ()}
    tensors["clip"] |= {name: lazy(name, shape, "float16") for name, shape in extra.items()}
    audio = audio_names(specs["dit"])
    write_sharded(
        wan, official.DIT_STEM, {name: tensor for name, tensor in tensors["dit"].items() if name not in audio}, 10**9
    )
    write_safetensors(infinitetalk, {name: tensor for name, tensor in tensors["dit"].items() if name in audio})
    for network, name in PICKLE_FILES.items():
        write_pth(wan / name, tensors[network])
    write_safetensors(wav2vec2 / official.WAV2VEC2_FILE, tensors["wav2vec2"])
    stacks = [(math.prod(leaf.shape) * dtype(DTYPES[n]).itemsize, list(leaf.shape)) for n, leaf in arrays(specs)]
    print(json.dumps(dict(zip(("bytes", "shape"), max(stacks), strict=True))))


def arrays(specs: dict) -> list:
    """(network, array) for every array of the networks' Flax parameters."""
    import jax

    return [(network, leaf) for network, part in specs.items() for leaf in jax.tree.leaves(part.abstract)]


def dtype(name: str):
    import numpy as np

    return np.dtype(name)


def draw(name: str, shape: tuple[int, ...], kind: str):
    """Random numbers, determined by the name."""
    import zlib

    import numpy as np

    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32).astype(kind)


def compare(before: Path, after: Path) -> None:
    """Raises AssertionError unless both sets have the same tensors, bit for bit."""
    from itjax.weights import official
    from itjax.weights.official import open_official

    opened = [open_official(f / official.WAN, f / official.WAV2VEC2, f / official.INFINITETALK) for f in (before, after)]
    count = 0
    for network, files in opened[0].items():
        assert set(files.names()) == set(opened[1][network].names()), network
        for name in files.names():
            ours, theirs = files.read(name), opened[1][network].read(name)
            assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, name
            assert ours.tobytes() == theirs.tobytes(), name
            count += 1
    print(json.dumps({"equal_tensors": count}))


def step(*command: str | Path) -> tuple[str, float, float]:
    """Runs a process; returns (last line printed, peak GB, seconds)."""
    start = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE, text=True, env=environment)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {command}\n{printed}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    return printed.strip().splitlines()[-1], peak, time.perf_counter() - start


def measure(folder: Path) -> None:
    """Prints the result in the format of benchmarks/results/conversion_memory.md."""
    this_file, converter = Path(__file__).resolve(), ROOT / "convert_weights.py"
    flags = lambda f: (
        *("--ckpt_dir", f / "Wan2.1-I2V-14B-480P", "--wav2vec_dir", f / "chinese-wav2vec2-base"),
        *("--infinitetalk_dir", f / "InfiniteTalk" / "single" / "infinitetalk.safetensors"),
    )
    preset, files, ours, back = folder / "memory.py", folder / "official", folder / "converted", folder / "back"
    preset.write_text(PRESET)
    facts = json.loads(step(this_file, "--step", "generate", files, preset)[0])
    rows = {
        "tiny checkpoint, to Orbax": step(converter, *flags(TINY), "--output", folder / "tiny"),
        "tiny checkpoint, back": step(
            converter, "--to-torch", "--checkpoint", folder / "tiny", "--output", folder / "tiny_back"
        ),
        "to Orbax": step(converter, *flags(files), "--preset", preset, "--output", ours),
        "back": step(converter, "--to-torch", "--checkpoint", ours, "--output", back),
    }
    equal = json.loads(step(this_file, "--step", "compare", files, back)[0])["equal_tensors"]
    size = sum(file.stat().st_size for file in files.rglob("*") if file.is_file())
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    print(f"CPU {_cpu()}, {os.cpu_count()} cores, {_memory():.0f} GB of memory.")
    print(f"Python {platform.python_version()}, {versions}.\n")
    print(f"Official files: {size / 1e9:.2f} GB. Largest stack: {facts['bytes'] / 1e9:.2f} GB {facts['shape']}.")
    print(f"Equal bit for bit after both ways: {equal} tensors.\n")
    print("| step | peak host memory, GB | seconds |\n| --- | --- | --- |")
    for name, (_, peak, seconds) in rows.items():
        print(f"| {name} | {peak:.2f} | {seconds:.0f} |")


VERSIONS = ("jax", "flax", "orbax-checkpoint", "tensorstore", "torch", "safetensors", "numpy")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.processor()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()), help="folder with 16 GB of free space")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        name, first, second = args.step
        {"generate": generate, "compare": compare}[name](Path(first), Path(second))
    else:
        with tempfile.TemporaryDirectory(dir=args.dir) as made:
            measure(Path(made))
