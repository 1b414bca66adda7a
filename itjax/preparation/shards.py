"""Reads the clips of a scanned folder, encodes them, and writes them to the dataset, shard by shard."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import safetensors
from jax.sharding import Mesh
from jaxtyping import Float16, Float32, UInt8

from itjax import records
from itjax.conditioning.prompt import NEGATIVE_PROMPT
from itjax.conditioning.speech_features import SpeechFeatures
from itjax.disk import output_errors
from itjax.errors import UserError
from itjax.media.containers import FRAME_RATE, SAMPLE_RATE
from itjax.pipeline.encoders import token_masks
from itjax.preparation import encode, folder
from itjax.preparation.clips import ScannedVideo, load_masks, load_pixels, load_region, load_tracks, open_region, open_video
from itjax.preparation.encode import Encoders
from itjax.preparation.folder import ClipSpan, PlannedShard
from itjax.preparation.settings import Settings
from itjax.preparation.videos import Video
from itjax.progress import Progress
from itjax.records import Clip, Layout
from itjax.weights.lazy import LazyTensor
from itjax.weights.sources import Weights
from itjax.weights.torch_writer import write_safetensors

A = TypeVar("A")


class LoadedClip(NamedTuple):
    """The networks' inputs for a clip.

    `video`, `caption`: name and caption of its video; `start`: its first frame there. `tracks` are those of the whole video,
    one object for all of its clips.
    """

    video: str
    caption: str
    start: int
    pixels: UInt8[np.ndarray, "F H W 3"]
    tracks: list[Float32[np.ndarray, " _"]]
    masks: Float32[np.ndarray, "G h w"] | None
    region: Float32[np.ndarray, "F h w"] | None


Reader = Callable[[Sequence[ClipSpan]], Iterator[LoadedClip]]  # of the clips of these spans, in order


def write_shards(
    read: Reader, scanned: Sequence[ScannedVideo], shards: Sequence[PlannedShard], out: Path, work: Path,
    settings: Settings, weights: Weights, mesh: Mesh, progress: Progress,
) -> None:  # fmt: skip
    """Writes the prompts and the shards. Texts come first, so that their encoder, the largest network, is freed early."""
    program = encode.program_of(weights.preset.networks, settings.layout, settings.dtype)
    captions = list(dict.fromkeys(video.caption for video in scanned if video.clips))
    _encode_captions(captions, out, work / folder.TEXTS_FILE, program, settings, weights, mesh)
    if not shards:
        return
    encoders = encode.open_encoders(weights, mesh, program, settings.batch)
    spans = [span for shard in shards for span in shard.spans]
    total = sum(span.stop - span.start for span in spans)
    loaded = prefetch(read(spans))
    with safetensors.safe_open(work / folder.TEXTS_FILE, "numpy") as texts, contextlib.closing(loaded):
        text_of = lambda caption: texts.get_tensor(str(captions.index(caption)))
        clips = encode_clips(loaded, text_of, encoders, settings)
        with progress.bar(total, "frame") as bar:
            for shard in shards:
                with output_errors(out / shard.path):
                    (out / shard.path).parent.mkdir(exist_ok=True)
                shard_records = []
                for span in shard.spans:
                    shard_records.append(records.to_records(next(clips)))
                    bar.advance(span.stop - span.start)
                records.write_shard(out / shard.path, shard_records)


def _encode_captions(
    captions: list[str], out: Path, path: Path, program, settings: Settings, weights: Weights, mesh: Mesh
) -> None:
    """Encodes texts: "" and the negative prompt into the dataset, the captions into the temporary file `path`."""
    if path.is_file() and (out / records.PROMPTS_FILE).is_file():
        return
    texts = ["", NEGATIVE_PROMPT, *captions]
    counts = encode.token_counts(weights, captions)
    states = encode.encode_texts(weights, texts, mesh, program, settings.batch)
    width = program.networks.dit.text_dim
    with contextlib.closing(states):
        records.write_null_prompts(out, np.stack([next(states), next(states)]))

        def cut(number: int) -> Float16[np.ndarray, "X Dt"]:  # must be called in the order of the captions
            return _finite(next(states)[: counts[number]].astype(np.float16), captions[number] or "no caption")

        lazy = lambda number, count: LazyTensor((count, width), np.dtype(np.float16), lambda _: cut(number))
        write_safetensors(path, {str(number): lazy(number, count) for number, count in enumerate(counts)})


def read_clips(videos: Sequence[Video], scanned: Sequence[ScannedVideo], spans: Iterable[ClipSpan]) -> Iterator[LoadedClip]:
    """Reads the images and audio of the clips, one clip at a time.

    Raises:
        UserError: if a file can no longer be read.
    """
    current = None
    for span in spans:
        video, size = videos[span.video], (scanned[span.video].height, scanned[span.video].width)
        if current != span.video:
            current = span.video
            source = open_video(video)
            tracks = [_padded_to(scanned[span.video].clips[-1][1], track) for track in load_tracks(video)]
            masks, region = load_masks(video, source.size, size), open_region(video, source.size)
        brightness = None if region is None else load_region(region, span.start, span.stop, size)
        pixels = load_pixels(source, span.start, span.stop, size)
        yield LoadedClip(video.name, scanned[span.video].caption, span.start, pixels, tracks, masks, brightness)


def _padded_to(num_frames: int, track: Float32[np.ndarray, " _"]) -> Float32[np.ndarray, " _"]:
    """The track, padded with silence if it is shorter than the video."""
    return np.pad(track, (0, max(0, num_frames * SAMPLE_RATE // FRAME_RATE - len(track))))


def prefetch(items: Iterator[A]) -> Generator[A]:
    """Yields the items (none of which may be None); a thread produces the next one in advance."""
    produce: Callable[[], A | None] = lambda: next(items, None)
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(produce)
        while (item := future.result()) is not None:
            future = thread.submit(produce)
            yield item


def encode_clips(
    loaded: Iterable[LoadedClip], text_of: Callable[[str], np.ndarray], encoders: Encoders, settings: Settings
) -> Iterator[Clip]:  # fmt: skip
    """Yields the encoded clips, in order."""
    layout = settings.layout
    opened: Sequence[Float32[np.ndarray, " _"]] | None = None
    speech: list[SpeechFeatures] = []
    for video, caption, start, pixels, tracks, masks, region in loaded:
        if tracks is not opened:
            opened, speech = tracks, [encode.open_speech(encoders, track) for track in tracks]
        stop = start + len(pixels)
        name = f"{video}[{start}:{stop}]"
        encoded = encode.encode_frames(encoders, pixels, layout)
        yield Clip(
            name=name,
            num_frames=len(pixels),
            chunk_starts=records.chunk_starts(len(pixels), layout),
            chunks=_finite(encoded.chunks, name),
            reference_frames=records.reference_frames(len(pixels), layout),
            references=_finite(encoded.references, name),
            clip_tokens=_finite(encoded.clip_tokens, name),
            speech=_finite(encode.encode_speech(speech, start, stop), name),
            text=text_of(caption),
            ends=None if encoded.ends is None else _finite(encoded.ends, name),
            regions=chunk_regions(region, encoded.chunks.shape, layout, len(pixels)) if layout.regions else None,
            masks=None if masks is None else np.asarray(token_masks(masks), np.float16),
        )


def chunk_regions(
    region: Float32[np.ndarray, "F h w"] | None, shape: tuple[int, ...], layout: Layout, num_frames: int
) -> Float16[np.ndarray, "n T h w"]:
    """The fraction of each latent cell inside the region, for chunks whose latents have the shape [n, T, h, w, C].

    The first latent covers one frame, the others four each, of which the maximum is taken. Zeros if a video has no region.
    """
    regions, times = np.zeros(shape[:4], np.float16), shape[1]
    if region is not None:
        for number, start in enumerate(records.chunk_starts(num_frames, layout)):
            frames = region[start : start + layout.frame_num]
            regions[number, 0] = frames[0]
            regions[number, 1:] = frames[1:].reshape(times - 1, -1, *frames.shape[1:]).max(axis=1)
    return regions


def _finite(values: Float16[np.ndarray, "*b"], what: str) -> Float16[np.ndarray, "*b"]:
    """Returns `values` from a network. Raises UserError if they are not finite, because training on them would fail."""
    if not np.isfinite(values).all():
        raise UserError(f"{what}: the networks' output is NaN or infinite. Convert the checkpoint again.")
    return values
