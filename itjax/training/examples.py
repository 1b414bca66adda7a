"""From clips to examples: which clips are for training and which are held out, and a chunk and a reference of each.

Chunk and reference of example i are drawn from (seed, i), so they do not depend on the number of processes or on
interruptions of the run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from itjax.errors import UserError
from itjax.media.containers import FRAME_RATE
from itjax.records import SPEECH_MARGIN, Clip, Dataset, Records
from itjax.training import reference_sampling
from itjax.training.config import References, Training
from itjax.training.objective import Batch


class ClipIndex(NamedTuple):
    """A clip of the dataset: the indices of its bucket, and of the clip in it."""

    bucket: int
    clip: int


class Split(NamedTuple):
    """Training clips by bucket, held-out clips, and the number of clips too short for the reference strategy."""

    train: tuple[tuple[int, ...], ...]
    held_out: tuple[ClipIndex, ...]
    too_short: int


def split(dataset: Dataset, references: References, validation_clips: int) -> Split:
    """Skips clips without a usable chunk, and holds out `validation_clips` of the others, evenly spaced.

    Raises:
        UserError: if no clip is usable, or none would be left for training.
    """
    usable = [
        [i for i, n in enumerate(b.num_frames) if len(reference_sampling.usable_chunks(references, n, dataset.layout))]
        for b in dataset.buckets
    ]
    all_usable = [ClipIndex(bucket, clip) for bucket, clips in enumerate(usable) for clip in clips]
    total = sum(len(bucket.num_frames) for bucket in dataset.buckets)
    if not all_usable:
        raise _none_usable(dataset, references, total)
    if len(all_usable) <= validation_clips:
        raise UserError(
            f"{dataset.folder}: {len(all_usable)} usable clips, but reports.validation-clips {validation_clips} would leave "
            "none for training. Use a smaller value."
        )
    indices = np.linspace(0, len(all_usable) - 1, validation_clips + 2)[1:-1] if validation_clips else ()
    held_out = tuple(all_usable[int(i)] for i in dict.fromkeys(int(i) for i in indices))
    train = tuple(tuple(c for c in clips if ClipIndex(b, c) not in held_out) for b, clips in enumerate(usable))
    return Split(train, held_out, total - len(all_usable))


def _none_usable(dataset: Dataset, references: References, total: int) -> UserError:
    stride = dataset.layout.reference_stride
    apart = stride / FRAME_RATE  # seconds between references, and from a chunk to the nearest one outside it
    if references.strategy == "M3" and apart > references.near_seconds:
        return UserError(
            f"{dataset.folder}: no chunk has a reference for references.strategy M3, however long its clip is: references "
            f"are {apart:g} s apart (--reference_stride {stride}), but references.near-seconds is "
            f"{references.near_seconds:g}. Use --references.near-seconds {apart:g}, or prepare the dataset with a smaller "
            "--reference_stride."
        )
    return UserError(
        f"{dataset.folder}: none of its {total} clips is long enough for references.strategy {references.strategy} with "
        f"chunks of {dataset.layout.frame_num} frames. Prepare longer clips, or choose another strategy."
    )


@dataclass(frozen=True)
class ExampleSampler:
    """Samples an example from a clip: `__call__(number, clip)` returns example `number` of a bucket's stream."""

    dataset: Dataset
    references: References
    context_latents: int
    context_dropout: float
    region_weight: float
    seed: int
    bucket: int

    def __call__(self, number: int, clip: Clip) -> tuple[Batch, str]:
        """An example drawn from the clip using only seed, bucket and `number`, and the clip's name."""
        rng = np.random.default_rng((self.seed, self.bucket, number))
        drawn = reference_sampling.draw(rng, self.references, clip.num_frames, self.dataset.layout, self.context_dropout)
        identity = (number * len(self.dataset.buckets) + self.bucket) % 2**32
        return self.example(clip, drawn, identity), clip.name

    def example(self, clip: Clip, drawn: reference_sampling.SampledPair, identity: int) -> Batch:
        """The example with the drawn chunk and reference.

        Raises:
            UserError: if the strategy is FL2V and the dataset has no `ends`.
        """
        start = int(clip.chunk_starts[drawn.chunk])
        reference = clip.references[drawn.reference]
        if self.references.strategy == "FL2V":
            if clip.ends is None:
                raise UserError(f"{self.dataset.folder} cannot be used with FL2V: prepare it with --ends.")
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


def example_sampler(dataset: Dataset, settings: Training, bucket: int) -> ExampleSampler:
    """The example sampler of a bucket, with the given settings."""
    references, dropout, weight = settings.references, settings.dropout.context, settings.region_weight
    return ExampleSampler(dataset, references, settings.context_latents, dropout, weight, settings.seed, bucket)


def held_out_examples(
    dataset: Dataset, settings: Training, held_out: Sequence[ClipIndex], per_clip: int
) -> list[tuple[int, Batch]]:
    """`per_clip` fixed examples of each held-out clip, as (bucket, example), each with its own identity."""
    examples: list[tuple[int, Batch]] = []
    for index in held_out:
        sampler = example_sampler(dataset, settings, index.bucket)
        clip = Records(dataset, dataset.buckets[index.bucket])[index.clip]
        rng = np.random.default_rng((settings.seed, index.bucket, index.clip))
        drawn = reference_sampling.draw(rng, settings.references, clip.num_frames, dataset.layout, 0.0)
        for _ in range(per_clip):
            # indices that no stream reaches, so that the noise differs from that of all training examples
            identity = 2**32 - 1 - len(examples)
            examples.append((index.bucket, sampler.example(clip, drawn, identity)))
    return examples
