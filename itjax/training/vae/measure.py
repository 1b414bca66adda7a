"""Measures a VAE on drawn people who are not in its training, through encode and decode as in inference."""

from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from itjax.config import VaeSizes
from itjax.media.containers import FRAME_RATE
from itjax.models.vae import LATENT_MEAN, LATENT_STD, decode_whole
from itjax.synthetic import clip as clips
from itjax.synthetic.source import DrawnClips
from itjax.synthetic.splits import Split
from itjax.training.vae import fold, opening

# N clips · F pixel frames, 4n+1 · H W pixels

SEED = 7  # of the held-out clips, whatever the seed of the training
FRAMES = 81  # a chunk of inference
CONTEXT = 9  # its last frames, which the next chunk continues from


class HeldOut(NamedTuple):
    """Clips of held-out people: frames, where the mouths are, how far they are open, and a reader of that for each clip."""

    video: UInt8[np.ndarray, "N F H W 3"]
    region: Bool[np.ndarray, "N F H W"]
    jaw: Float[np.ndarray, "N F"]
    readers: list[opening.Reader]


class Figures(NamedTuple):
    """What a VAE keeps of held-out clips.

    `psnr`, `mouth_psnr`: decibels, of all pixels and of those around the mouth, of pictures as 8-bit numbers. `mouth_r`:
    mean over the clips of the correlation of the opening read from decoded pictures with the truth; `mouth_r_of_truth`: the
    same, read from the true pictures. `latent_mean`, `latent_std`: of the normalised latents, the largest deviation of a
    channel's mean from 0 and of its standard deviation from 1. `again`: what is lost when decoded pictures are encoded and
    decoded as the next chunk's context; of their last one, the mean absolute difference in levels of 255.
    """

    psnr: float
    mouth_psnr: float
    mouth_r: float
    mouth_r_of_truth: float
    latent_mean: float
    latent_std: float
    again: float


def held_out(count: int, size: int, split: Split, num_frames: int, workers: Executor) -> HeldOut:
    """Draws `count` clips of the split, of 4n+1 frames each, and learns to read their mouths.

    Raises:
        UserError: If espeak-ng is not installed.
    """
    source = DrawnClips(SEED, count, num_frames / FRAME_RATE, (size, size), split)
    videos, regions, jaws, readers = zip(*workers.map(partial(_clip_and_reader, source), range(count)), strict=True)
    return HeldOut(np.stack(videos), np.stack(regions), np.stack(jaws), list(readers))


def _clip_and_reader(source: DrawnClips, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, opening.Reader]:
    drawn = source[number]
    clip = clips.make((SEED, number), source.seconds, *source.size, split=source.split)
    return drawn["video"], drawn["region"], drawn["mouth"][0, :, 0], opening.learn(clip, drawn["mouth_boxes"][0])


def evaluate(parameters: dict, sizes: VaeSizes, clips: HeldOut) -> tuple[Figures, UInt8[np.ndarray, "N F H W 3"]]:
    """The figures of folded parameters, and the decoded clips. All frames at once, which are the recurrence's numbers."""
    latents = [fold.encoded(parameters, video, sizes) for video in clips.video]
    made = np.stack([np.asarray(_decoded(parameters, each, sizes)) for each in latents])
    ends = made[:, -CONTEXT:]
    again = np.stack([np.asarray(_decoded(parameters, fold.encoded(parameters, each, sizes), sizes)) for each in ends])
    normalised = (np.concatenate(latents).reshape(-1, sizes.z_dim) - LATENT_MEAN) / LATENT_STD
    squared = (made.astype(np.float32) - clips.video.astype(np.float32)) ** 2
    read = [reader(frames) for reader, frames in zip(clips.readers, made, strict=True)]
    truly = [reader(frames) for reader, frames in zip(clips.readers, clips.video, strict=True)]
    figures = Figures(
        psnr=_decibels(float(squared.mean())),
        mouth_psnr=_decibels(float(squared[clips.region].mean())),
        mouth_r=_mean_correlation(read, clips.jaw),
        mouth_r_of_truth=_mean_correlation(truly, clips.jaw),
        latent_mean=float(np.abs(normalised.mean(0)).max()),
        latent_std=float(np.abs(normalised.std(0) - 1).max()),
        again=float(np.abs(again[:, -1].astype(np.float32) - ends[:, -1].astype(np.float32)).mean()),
    )
    return figures, made


@partial(jax.jit, static_argnames="sizes")
def _decoded(parameters: dict, latents: Array, sizes: VaeSizes) -> Array:
    """Frames as 8-bit numbers, from latents that are not normalised."""
    frames = jnp.clip(decode_whole(parameters, latents[None], sizes)[0], -1, 1)
    return jnp.rint((frames + 1) * 127.5).astype(jnp.uint8)


def _decibels(squared: float) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures with this mean squared error."""
    return float(10 * np.log10(255**2 / max(squared, 1e-9)))


def _mean_correlation(read: list[np.ndarray], truth: Float[np.ndarray, "N F"]) -> float:
    """Over the clips; 0 for one whose mouth does not move."""
    values = [
        np.corrcoef(opened, true)[0, 1] if np.ptp(opened) and np.ptp(true) else 0.0
        for opened, true in zip(read, truth, strict=True)
    ]
    return float(np.mean(values))
