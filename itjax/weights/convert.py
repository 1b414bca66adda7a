"""Converts complete sets of weights: official files -> our checkpoint -> official files, tensor by tensor."""

import shutil
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from flax.traverse_util import unflatten_dict

from itjax.disk import atomic_path, check_absent, check_output, output_errors
from itjax.progress import SILENT, Progress
from itjax.weights import official, store
from itjax.weights.lazy import LazyTensor
from itjax.weights.load import leaves, torch_view
from itjax.weights.mapping import Index, sources
from itjax.weights.specs import NetworkSpec
from itjax.weights.tables.dit import AUDIO
from itjax.weights.torch_files import TensorFiles
from itjax.weights.torch_writer import write_pth, write_safetensors, write_sharded

PICKLE_FILES = {"vae": official.VAE_FILE, "umt5": official.UMT5_FILE, "clip": official.CLIP_FILE}


class Report:
    """A progress bar over all bytes, and one line for each finished part: its bytes and seconds."""

    def __init__(self, nbytes: int, progress: Progress):
        self.progress, self.bar = progress, progress.bar(nbytes, "B")
        self.begun = time.perf_counter()

    def watched(self, tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
        """The same tensors; reading one advances the bar."""

        def read(tensor: LazyTensor, index: Index) -> np.ndarray:
            values = tensor.read(index)
            self.bar.advance(values.nbytes)
            return values

        return {name: tensor._replace(read=partial(read, tensor)) for name, tensor in tensors.items()}

    def finished(self, what: str, nbytes: int) -> None:
        """Reports the line for `what`: its bytes, and the seconds since the previous line."""
        now = time.perf_counter()
        self.progress.notice(f"{what}: {nbytes / 1e9:.3f} GB in {now - self.begun:.1f} s")
        self.begun = now


def to_checkpoint(
    specs: Mapping[str, NetworkSpec],
    files: Mapping[str, TensorFiles],
    metadata: dict,
    companions: Mapping[str, Path],
    output: Path,
    progress: Progress = SILENT,
) -> None:
    """Writes our checkpoint of all networks; tensors they do not use are kept as "unused/<network>/<torch name>".

    Raises:
        UserError: if `files` do not contain the networks of `specs`, and as in `store.save`.
        OutputError: as in `store.save`.
    """
    arrays: dict[str, LazyTensor] = {}
    for network, spec in specs.items():
        arrays |= {f"{network}/{path}": leaf for path, leaf in leaves(spec, files[network], network).items()}
    for network, spec in specs.items():
        unused = {name: tensor for name, tensor in files[network].tensors.items() if spec.is_unused(name)}
        arrays |= {f"unused/{network}/{name}": tensor for name, tensor in unused.items()}

    branch = lambda path: path.split("/")[0]
    report = Report(sum(array.nbytes for array in arrays.values()), progress)
    remaining, nbytes = Counter(map(branch, arrays)), Counter[str]()

    def saved(path: str) -> None:
        remaining[branch(path)] -= 1
        nbytes[branch(path)] += arrays[path].nbytes
        if not remaining[branch(path)]:
            report.finished(branch(path), nbytes[branch(path)])

    with report.bar:
        store.save(output, unflatten_dict(report.watched(arrays), sep="/"), metadata, companions, saved)


def to_official(specs: Mapping[str, NetworkSpec], directory: Path, output: Path, progress: Progress = SILENT) -> None:
    """Writes a set of official files, in their folders, from our checkpoint `directory`. Leaves no partial result behind.

    A checkpoint of some of the networks, such as that of a trained speech encoder, gives the files of these.

    Raises:
        UserError: if networks of the checkpoint are not those of `specs`, `output` exists, or its parent does not.
        OutputError: if the disk is full.
    """
    target, stored = Path(output).absolute(), store.open_checkpoint(directory)
    check_absent(target)
    in_it = {path.split("/")[0] for path in stored.names()}
    specs = {network: spec for network, spec in specs.items() if network in in_it} or specs
    views = {network: torch_view(spec, stored, network) for network, spec in specs.items()}
    sizes = {network: nbytes_of(view.tensors) for network, view in views.items()}
    scratch = max(
        (sizes[network] for network in PICKLE_FILES if network in sizes), default=0
    )  # temporary space of write_pth
    check_output(target, sum(sizes.values()) + scratch)
    report = Report(sum(sizes.values()), progress)
    with atomic_path(target) as folder, report.bar:
        with output_errors(target):
            folder.mkdir()
            for name in {official.WAV2VEC2 if network == "wav2vec2" else official.WAN for network in specs}:
                (folder / name).mkdir()
            _copy_companions(store.companion_files(directory), folder)
        _write_networks(specs, views, folder, report)


def _write_networks(
    specs: Mapping[str, NetworkSpec], views: Mapping[str, TensorFiles], folder: Path, report: Report
) -> None:
    wan = folder / official.WAN
    if "dit" in views:
        write_dit_base(specs["dit"], views["dit"], folder, report)
        write_dit_audio(specs["dit"], views["dit"], folder, report)
    tensors = {network: report.watched(view.tensors) for network, view in views.items() if network != "dit"}
    for network in (name for name in PICKLE_FILES if name in tensors):
        write_pth(wan / PICKLE_FILES[network], tensors[network])
        report.finished(network, nbytes_of(tensors[network]))
    if "wav2vec2" in tensors:
        write_safetensors(folder / official.WAV2VEC2 / official.WAV2VEC2_FILE, tensors["wav2vec2"])
        report.finished("wav2vec2", nbytes_of(tensors["wav2vec2"]))


def write_dit_base(dit: NetworkSpec, view: TensorFiles, folder: Path, report: Report) -> None:
    """Writes the DiT's tensors from Wan, as shards with an index."""
    audio = audio_names(dit)
    base = {name: tensor for name, tensor in view.tensors.items() if name not in audio}
    write_sharded(folder / official.WAN, official.DIT_STEM, report.watched(base))
    report.finished("dit, base", nbytes_of(base))


def write_dit_audio(dit: NetworkSpec, view: TensorFiles, folder: Path, report: Report) -> None:
    """Writes the DiT's tensors added by InfiniteTalk, as a single file."""
    audio = audio_names(dit)
    added = {name: tensor for name, tensor in view.tensors.items() if name in audio}
    path = folder / official.INFINITETALK
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, report.watched(added))
    report.finished("dit, audio", nbytes_of(added))


def audio_names(dit: NetworkSpec) -> frozenset[str]:
    """Names of the DiT's tensors that InfiniteTalk added to Wan's."""
    paths = {row.path for row in AUDIO}
    rows = sources(dit.table, dit.abstract)
    return frozenset(name for source in rows if source.path in paths for name in source.names)


def nbytes_of(tensors: Mapping[str, LazyTensor]) -> int:
    """Total bytes of all tensors."""
    return sum(tensor.nbytes for tensor in tensors.values())


def _copy_companions(source: Path, folder: Path) -> None:
    """Copies the companion files. A checkpoint that was not made from official files has none."""
    for file in sorted(source.rglob("*")):
        if file.is_file():
            target = folder / official.official_place(file.relative_to(source).as_posix())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
