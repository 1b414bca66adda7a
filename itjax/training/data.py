"""From records to batches on the mesh: a stream of examples that depends only on the seed.

Each process reads only the examples of its own devices.
"""

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from itjax.errors import UserError
from itjax.records import Dataset, Records
from itjax.training.config import Training
from itjax.training.examples import ExampleSampler, example_sampler
from itjax.training.objective import Batch
from itjax.training.step import batch_sharding

# a fraction of the cores: reader threads compete for the interpreter lock with the loop that feeds the devices
READ_OPTIONS = grain.ReadOptions(num_threads=min(16, max(1, (os.cpu_count() or 1) // 4)), prefetch_buffer_size=16)
UNREADABLE = "unreadable: "  # prefix of the name of a placeholder for an example that could not be read


class Batches:
    """The endless batches of a bucket, as a data source for grain.

    Contains only the examples of each batch that one group of processes reads. The examples of an epoch are the `chosen`
    clips, each once, shuffled differently in each epoch.

    With `nan_if_unreadable`, for several processes, an unreadable example does not raise an error, because the other
    processes would wait for this one. Instead, its latents are NaN and its name contains the error. The loss of that step is
    then NaN in every process, and all of them save and end.

    grain's own `shuffle`, `repeat` and `batch` would be equivalent, but took longer than reading the data: for a small
    number of clips, `shuffle` steps through up to 2^16 numbers to find each index.
    """

    def __init__(
        self, clips: Records, chosen: tuple[int, ...], sampler: ExampleSampler, size: int, group: int = 0, groups: int = 1,
        nan_if_unreadable: bool = False,
    ):  # fmt: skip
        self._clips, self._chosen, self._sampler = clips, np.asarray(chosen), sampler
        self._size, self._group, self._groups, self._nan_if_unreadable = size, group, groups, nan_if_unreadable
        self._order = functools.lru_cache(maxsize=2)(self._order_of)  # examples that are read ahead may be in the next epoch

    def _order_of(self, epoch: int) -> np.ndarray:
        # 1: distinguishes it from the random numbers of all examples
        return np.random.default_rng((self._sampler.seed, self._sampler.bucket, epoch, 1)).permutation(self._chosen)

    def _example(self, number: int) -> tuple[Batch, str]:
        epoch, position = divmod(number, len(self._chosen))
        return self._sampler(number, self._clips[int(self._order(epoch)[position])])

    def _example_or_nan(self, number: int) -> tuple[Batch, str]:
        try:
            return self._example(number)
        except UserError as error:
            for other in range(len(self._chosen)):  # an intact example, for the shapes
                with contextlib.suppress(UserError):
                    example, _ = self._example(other)
                    return example._replace(latents=np.full_like(example.latents, np.nan)), f"{UNREADABLE}{error}"
            raise

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, number: int) -> tuple[Batch, list[str]]:
        first = number * self._size
        read = self._example_or_nan if self._nan_if_unreadable else self._example
        return stack([read(i) for i in range(first + self._group, first + self._size, self._groups)])

    def __repr__(self) -> str:
        return f"Batches({self._size} of {len(self._chosen)} of {self._clips!r})"


class ProcessGroup(NamedTuple):
    """The number of this process's group, and of how many groups. The devices of a group hold the same examples."""

    group: int
    groups: int


def process_group(mesh: Mesh) -> ProcessGroup:
    """The group of this process, determined by the data rows of the mesh that contain its devices.

    Raises:
        UserError: if two processes share some examples of a batch but not all.
    """
    rows_of: dict[int, set[int]] = {}
    for (row, *_), device in np.ndenumerate(mesh.devices):
        rows_of.setdefault(device.process_index, set()).add(row)
    groups = sorted({tuple(sorted(rows)) for rows in rows_of.values()})
    if len({row for rows in groups for row in rows}) != sum(map(len, groups)) or len(set(map(len, groups))) != 1:
        raise UserError(
            f"a mesh of {mesh.devices.shape} (data, context, ulysses) splits examples over parts of several processes: "
            "choose mesh.context and mesh.ulysses so that their product divides the devices per process, or is a multiple"
        )
    return ProcessGroup(groups.index(tuple(sorted(rows_of[jax.process_index()]))), len(groups))


class Stream:
    """The endless batches of a run.

    `state` and `restore` save and restore its position, so that a resumed run continues with the same batches.
    """

    def __init__(self, dataset: Dataset, settings: Training, train: Sequence[Sequence[int]], mesh: Mesh):
        self._sharding = batch_sharding(mesh)
        self._dataset, self._clips = dataset, _fingerprint(dataset, train)
        group, groups = process_group(mesh)
        parts, weights = [], []
        for number, (bucket, chosen) in enumerate(zip(dataset.buckets, train, strict=True)):
            if chosen:
                sampler = example_sampler(dataset, settings, number)
                several = jax.process_count() > 1
                batches = Batches(
                    Records(dataset, bucket),
                    tuple(chosen),
                    sampler,
                    settings.batch,
                    group,
                    groups,
                    nan_if_unreadable=several,
                )
                parts.append(grain.MapDataset.source(batches))
                weights.append(len(chosen))
        # each batch comes from one bucket, because clips of different sizes cannot be stacked
        mixed = grain.MapDataset.mix(parts, weights) if len(parts) > 1 else parts[0]
        self._iterator = iter(mixed.to_iter_dataset(READ_OPTIONS))

    def __iter__(self) -> Iterator[tuple[Batch, list[str]]]:
        return self

    def __next__(self) -> tuple[Batch, list[str]]:
        """The next batch on the mesh, and the names of the clips in it that this process read.

        Raises:
            UserError: if a record is damaged and there is a single process; for several, see `Batches`.
        """
        batch, names = next(self._iterator)
        return shard_batch(batch, self._sharding), [str(name) for name in names]

    def state(self) -> dict[str, Any]:
        """The position as JSON-serialisable values; the same in every process."""
        return {"clips": self._clips, "iterator": self._iterator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from a position returned by `state`.

        Raises:
            UserError: if the position belongs to other clips.
        """
        if state["clips"] != self._clips:
            raise UserError(
                f"{self._dataset.folder}: this run was trained on different clips. Use its original dataset and the same "
                "reports.validation-clips, or another run folder."
            )
        self._iterator.set_state(state["iterator"])


def _fingerprint(dataset: Dataset, train: Sequence[Sequence[int]]) -> str:
    """A hash of the selected clips, independent of the dataset's location."""
    clips = [(bucket.name, bucket.num_frames, tuple(chosen)) for bucket, chosen in zip(dataset.buckets, train, strict=True)]
    return hashlib.sha256(repr((dataset.layout, clips)).encode()).hexdigest()


def stack(examples: Sequence[tuple[Batch, str]]) -> tuple[Batch, list[str]]:
    """Stacks examples of one bucket to a batch."""
    batches, names = zip(*examples, strict=True)
    return jax.tree.map(lambda *parts: np.stack(parts), *batches), list(names)


def shard_batch(batch: Batch, sharding: NamedSharding) -> Batch:
    """Places a batch on the mesh, of which each process has a part."""
    with jax.transfer_guard_host_to_device("allow"):  # an intended transfer
        if sharding.mesh.size == 1:  # jit transfers its arguments without Python overhead
            return _sharding_program(sharding)(batch)
        if jax.process_count() == 1:  # a single call for all leaves
            return jax.device_put(batch, sharding)
        return jax.tree.map(lambda part: jax.make_array_from_process_local_data(sharding, part), batch)


@functools.cache
def _sharding_program(sharding: NamedSharding) -> Callable[[Batch], Batch]:
    return jax.jit(lambda batch: batch, out_shardings=sharding)


def check_batch(settings: Training, mesh: Mesh) -> None:
    """Checks that the batch can be split over the mesh.

    Raises:
        UserError: if the data axis does not divide the parts of the batch.
    """
    rows = mesh.shape["data"]
    if settings.batch % (settings.accumulation * rows):
        raise UserError(
            f"batch {settings.batch} in {settings.accumulation} part(s) cannot be split over the {rows} data rows of the "
            f"mesh ({mesh.size} devices): use a multiple of {settings.accumulation * rows}"
        )
