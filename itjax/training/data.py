"""From records to batches on the mesh: a stream of examples that depends on the seed alone.

Example number i of the stream is the same however many processes read it and wherever a run was stopped: chunk and
reference are drawn from (seed, i). Each process reads only the examples of its own devices.
"""

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from itjax import records
from itjax.errors import UserError
from itjax.records import SPEECH_MARGIN, Clip, Dataset, Records
from itjax.training import reference_sampling
from itjax.training.config import References, Training
from itjax.training.objective import Batch
from itjax.training.step import batch_sharding

# few threads on few cores: they take the interpreter from the loop that feeds the devices
READERS = grain.ReadOptions(num_threads=min(16, max(1, (os.cpu_count() or 1) // 4)), prefetch_buffer_size=16)


UNREADABLE = "unreadable: "  # begins the name of an example that stands for one that could not be read


class Place(NamedTuple):
    """A clip of the dataset: its bucket, and its number in it."""

    bucket: int
    clip: int


class Split(NamedTuple):
    """Clips to train on, by bucket; clips that are held out; and how many are too short for the reference strategy."""

    train: tuple[tuple[int, ...], ...]
    held_out: tuple[Place, ...]
    too_short: int


def split(dataset: Dataset, references: References, validation_clips: int) -> Split:
    """Leaves out clips without a usable chunk, and holds some of the others out, evenly spaced.

    Raises:
        UserError: where no clip is usable, or none would be left to train on.
    """
    usable = [
        [i for i, n in enumerate(b.num_frames) if len(reference_sampling.usable_chunks(references, n, dataset.layout))]
        for b in dataset.buckets
    ]
    all_usable = [Place(bucket, clip) for bucket, clips in enumerate(usable) for clip in clips]
    total = sum(len(bucket.num_frames) for bucket in dataset.buckets)
    if not all_usable:
        raise UserError(
            f"{dataset.folder}: none of its {total} clips is long enough for references.strategy {references.strategy} with "
            f"chunks of {dataset.layout.frame_num} frames. Prepare longer clips, or choose another strategy."
        )
    if len(all_usable) <= validation_clips:
        raise UserError(
            f"{dataset.folder}: {len(all_usable)} usable clips, of which reports.validation-clips {validation_clips} would "
            "be held out: none is left to train on. Hold fewer out."
        )
    at = np.linspace(0, len(all_usable) - 1, validation_clips + 2)[1:-1] if validation_clips else ()
    held_out = tuple(all_usable[int(i)] for i in dict.fromkeys(int(i) for i in at))
    train = tuple(tuple(c for c in clips if Place(b, c) not in held_out) for b, clips in enumerate(usable))
    return Split(train, held_out, total - len(all_usable))


@dataclass(frozen=True)
class Cutter:
    """From a clip to an example: `__call__(number, clip)` for number `number` of a bucket's stream."""

    dataset: Dataset
    references: References
    context_latents: int
    without_context: float
    region_weight: float
    seed: int
    bucket: int

    def __call__(self, number: int, clip: Clip) -> tuple[Batch, str]:
        """An example of the clip, drawn from seed, bucket and `number` alone, and the clip's name."""
        rng = np.random.default_rng((self.seed, self.bucket, number))
        drawn = reference_sampling.draw(rng, self.references, clip.num_frames, self.dataset.layout, self.without_context)
        identity = (number * len(self.dataset.buckets) + self.bucket) % 2**32
        return self.cut(clip, drawn, identity), clip.name

    def cut(self, clip: Clip, drawn: reference_sampling.SampledPair, identity: int) -> Batch:
        """The chunk and reference that were drawn.

        Raises:
            UserError: where a dataset without `ends` is to train FL2V.
        """
        start = int(clip.chunk_starts[drawn.chunk])
        reference = clip.references[drawn.reference]
        if self.references.strategy == "FL2V":
            if clip.ends is None:
                raise UserError(f"{self.dataset.folder}: FL2V needs chunks' ends. Prepare it with --ends.")
            reference = clip.ends[drawn.chunk]
        dit = self.dataset.preset.networks.dit
        text = np.zeros((dit.text_len, dit.text_dim), np.float16)
        text[: len(clip.text)] = clip.text
        return Batch(
            latents=clip.chunks[drawn.chunk],
            reference=reference,
            clip=clip.clip_tokens[drawn.reference],
            speech=clip.speech[:, start : start + self.dataset.layout.frame_num + 2 * SPEECH_MARGIN],
            text=text,
            context_latents=np.asarray(self.context_latents if drawn.context else 1, np.int32),
            identity=np.asarray(identity, np.uint32),
            masks=clip.masks,
            region=None if self.region_weight == 1 or clip.regions is None else clip.regions[drawn.chunk],
        )


def cutter(dataset: Dataset, settings: Training, bucket: int) -> Cutter:
    """The cutter of a bucket, as the settings ask for it."""
    references, share, weight = settings.references, settings.dropout.context, settings.region_weight
    return Cutter(dataset, references, settings.context_latents, share, weight, settings.seed, bucket)


class Batches:
    """The endless batches of a bucket, as a source that grain reads.

    Of each batch it has those examples that one group of processes reads. Example number i shows one of the `chosen` clips,
    each once in an epoch, in an order of that epoch's own.

    With `together`, an example that cannot be read is no error here: other processes would wait for this one. Its numbers
    are NaN and its name says why; so the loss of that step is NaN in every process, and all of them save and end.

    grain's own `shuffle`, `repeat` and `batch` would do the same; but `shuffle` finds each place among few clips by walking
    through 2^16 numbers, and together they took longer than the reading.
    """

    def __init__(
        self, clips: Records, chosen: tuple[int, ...], cut: Cutter, size: int, group: int = 0, groups: int = 1,
        together: bool = False,
    ):  # fmt: skip
        self._clips, self._chosen, self._cut = clips, np.asarray(chosen), cut
        self._size, self._group, self._groups, self._together = size, group, groups, together
        self._order = functools.lru_cache(maxsize=2)(self._order_of)  # what is read ahead may lie in the next epoch

    def _order_of(self, epoch: int) -> np.ndarray:
        # 1: not the random numbers of any example
        return np.random.default_rng((self._cut.seed, self._cut.bucket, epoch, 1)).permutation(self._chosen)

    def _example(self, number: int) -> tuple[Batch, str]:
        epoch, place = divmod(number, len(self._chosen))
        return self._cut(number, self._clips[int(self._order(epoch)[place])])

    def _example_or_nan(self, number: int) -> tuple[Batch, str]:
        try:
            return self._example(number)
        except UserError as error:
            for other in range(len(self._chosen)):  # one that is whole has the shapes
                with contextlib.suppress(UserError):
                    example, _ = self._example(other)
                    return example._replace(latents=np.full_like(example.latents, np.nan)), f"{UNREADABLE}{error}"
            raise

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, number: int) -> tuple[Batch, list[str]]:
        first = number * self._size
        read = self._example_or_nan if self._together else self._example
        return stack([read(i) for i in range(first + self._group, first + self._size, self._groups)])

    def __repr__(self) -> str:
        return f"Batches({self._size} of {len(self._chosen)} of {self._clips!r})"


class Readers(NamedTuple):
    """Processes whose devices hold the same examples of a batch read the same: which group of how many this one is in."""

    group: int
    groups: int


def readers(mesh: Mesh) -> Readers:
    """The group that this process reads with, by the rows of the mesh that its devices are in.

    Raises:
        UserError: where processes would share some examples of a batch but not all.
    """
    rows_of: dict[int, set[int]] = {}
    for (row, *_), device in np.ndenumerate(mesh.devices):
        rows_of.setdefault(device.process_index, set()).add(row)
    groups = sorted({tuple(sorted(rows)) for rows in rows_of.values()})
    if len({row for rows in groups for row in rows}) != sum(map(len, groups)) or len(set(map(len, groups))) != 1:
        raise UserError(
            f"a mesh of {mesh.devices.shape} (data, context, ulysses) splits an example over parts of several processes: "
            "choose mesh.context and mesh.ulysses so that their product divides the devices of a process, or is a multiple"
        )
    return Readers(groups.index(tuple(sorted(rows_of[jax.process_index()]))), len(groups))


class Stream:
    """The endless batches of a run.

    `state` and `restore` are its position: with them the stream goes on as if it had never stopped, over the same clips.
    """

    def __init__(self, dataset: Dataset, settings: Training, train: Sequence[Sequence[int]], mesh: Mesh):
        self._sharding = batch_sharding(mesh)
        self._dataset, self._clips = dataset, _fingerprint(dataset, train)
        group, groups = readers(mesh)
        parts, weights = [], []
        for number, (bucket, chosen) in enumerate(zip(dataset.buckets, train, strict=True)):
            if chosen:
                cut = cutter(dataset, settings, number)
                together = jax.process_count() > 1
                batches = Batches(
                    Records(dataset, bucket), tuple(chosen), cut, settings.batch, group, groups, together=together
                )
                parts.append(grain.MapDataset.source(batches))
                weights.append(len(chosen))
        # one batch is of one bucket: clips of other sizes do not stack
        mixed = grain.MapDataset.mix(parts, weights) if len(parts) > 1 else parts[0]
        self._iterator = iter(mixed.to_iter_dataset(READERS))

    def __iter__(self) -> Iterator[tuple[Batch, list[str]]]:
        return self

    def __next__(self) -> tuple[Batch, list[str]]:
        """The next batch on the mesh, and the names of the clips of it that this process read.

        Raises:
            UserError: where a record is damaged; among several processes it is told as `Batches` says.
        """
        batch, names = next(self._iterator)
        return on_mesh(batch, self._sharding), [str(name) for name in names]

    def state(self) -> dict[str, Any]:
        """The position, as JSON can hold it; the same in every process."""
        return {"clips": self._clips, "iterator": self._iterator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to a position that `state` gave.

        Raises:
            UserError: where the position is one among other clips.
        """
        if state["clips"] != self._clips:
            raise UserError(
                f"{self._dataset.folder}: the run has trained on other clips than these. Give it the dataset it began with, "
                "and the same reports.validation-clips; or another run folder."
            )
        self._iterator.set_state(state["iterator"])


def _fingerprint(dataset: Dataset, train: Sequence[Sequence[int]]) -> str:
    """Tells one choice of clips from another, wherever the dataset lies."""
    clips = [(bucket.name, bucket.num_frames, tuple(chosen)) for bucket, chosen in zip(dataset.buckets, train, strict=True)]
    return hashlib.sha256(repr((dataset.layout, clips)).encode()).hexdigest()


def stack(examples: Sequence[tuple[Batch, str]]) -> tuple[Batch, list[str]]:
    """Examples of one bucket as a batch, in their order."""
    batches, names = zip(*examples, strict=True)
    return jax.tree.map(lambda *parts: np.stack(parts), *batches), list(names)


def on_mesh(batch: Batch, sharding: NamedSharding) -> Batch:
    """A batch whose parts the processes have, as one array over all of them."""
    with jax.transfer_guard_host_to_device("allow"):  # not unseen: this is the place for it
        if sharding.mesh.size == 1:  # the arguments of a program go a way without Python
            return _placed(sharding)(batch)
        if jax.process_count() == 1:  # all parts at once
            return jax.device_put(batch, sharding)
        return jax.tree.map(lambda part: jax.make_array_from_process_local_data(sharding, part), batch)


@functools.cache
def _placed(sharding: NamedSharding) -> Callable[[Batch], Batch]:
    return jax.jit(lambda batch: batch, out_shardings=sharding)


def check_batch(settings: Training, mesh: Mesh) -> None:
    """Checks that the batch can be split.

    Raises:
        UserError: where a part of the batch does not divide among the mesh's data axis.
    """
    rows = mesh.shape["data"]
    if settings.batch % (settings.accumulation * rows):
        raise UserError(
            f"batch {settings.batch} in {settings.accumulation} part(s) does not divide over the {rows} rows of the mesh "
            f"({mesh.size} devices): make it a multiple of {settings.accumulation * rows}"
        )


def held_out_examples(
    dataset: Dataset, settings: Training, held_out: Sequence[Place], per_clip: int
) -> list[tuple[int, Batch]]:
    """(bucket, example) for each held-out clip, `per_clip` times, always the same and each with its own identity."""
    examples: list[tuple[int, Batch]] = []
    for place in held_out:
        cut = cutter(dataset, settings, place.bucket)
        clip = records.Records(dataset, dataset.buckets[place.bucket])[place.clip]
        rng = np.random.default_rng((settings.seed, place.bucket, place.clip))
        drawn = reference_sampling.draw(rng, settings.references, clip.num_frames, dataset.layout, 0.0)
        for _ in range(per_clip):
            identity = 2**32 - 1 - len(examples)  # numbers that no stream reaches: the noise of these is their own
            examples.append((place.bucket, cut.cut(clip, drawn, identity)))
    return examples
