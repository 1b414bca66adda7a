"""Inputs that are whole, to be damaged; runs that end where they would generate."""

import itertools
import os

import av
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import tiny_dataset
from kinds import SAMPLING, Accepted, Originals
from PIL import Image
from safetensors.numpy import save_file

from itjax.commands import flags, infer
from itjax.media import sound_track, speech
from itjax.pipeline import dub
from itjax.pipeline.noise_file import NoiseFile
from itjax.sampling.chunk import first_carry


def _read_to_the_end(inputs, settings, weights, mesh, noise, chunks, writer, progress) -> None:
    """In place of generating: reads what it would read."""
    for current in chunks:
        inputs.source.frame(current.start)
        if isinstance(noise, NoiseFile):
            noise.read(current.number)
    sound = speech.sound_track(inputs.request.sounds, inputs.request.audio_type)
    for _ in itertools.islice(sound_track.packets(sound), 500):
        pass
    raise Accepted


def _two_chunks(inputs, settings, weights, mesh, noise, chunks, writer, progress) -> None:
    """In place of generating: two grey chunks, and Ctrl-C."""
    picture = jnp.zeros((inputs.height, inputs.width, 3))
    state = {name: np.asarray(value) for name, value in first_carry(picture, settings.sampler)._asdict().items()}
    state["pinned_latents"] = np.asarray(settings.sampler.context_latents, state["pinned_latents"].dtype)
    for current in chunks[:2]:
        frames = np.zeros((settings.sampler.frame_num, inputs.height, inputs.width, 3), np.float32)[current.kept]
        writer.append(np.full(frames.shape, 127, np.uint8), frames, state)
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def originals(tmp_path_factory, recordings, checkpoint, made_once) -> Originals:
    folder = tmp_path_factory.mktemp("originals")
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8))
    for name in ("a.png", "a.jpg", "a.webp", "a.tiff", "a.gif"):
        picture.save(folder / name)
    noise = rng.normal(0, 0.1, 16_000).astype(np.float32)
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3"):
        soundfile.write(folder / name, noise, 16_000)
    for name, codec in (("a.mp4", "libx264"), ("a.mkv", "mpeg4"), ("a.avi", "mjpeg")):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for i in range(30):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * i, np.uint8))))
            container.mux(stream.encode(None))
    save_file(
        {f"noise_{i}": rng.normal(size=(16, 2, 6, 8)).astype(np.float32) for i in range(7)}, folder / "noise.safetensors"
    )
    official = recordings / "checkpoint"
    weights = [
        *("--ckpt_dir", str(official / "Wan2.1-I2V-14B-480P"), "--wav2vec_dir", str(official / "chinese-wav2vec2-base")),
        *("--infinitetalk_dir", str(official / "InfiniteTalk/single/infinitetalk.safetensors")),
    ]
    lora, dataset = recordings / "modules" / "lora.safetensors", made_once("clips", tiny_dataset.make_dataset)
    return Originals(folder, official, checkpoint, lora, dataset, weights, [])


@pytest.fixture(scope="session")
def opened(originals):
    """The weights, opened once for all cases in which they are intact."""
    return infer.open_weights(flags.parser("infer.py").parse_args(originals.weights))


@pytest.fixture(scope="session")
def begun(originals, opened):
    """A folder with a run that was stopped after two chunks, and the flags to continue it."""
    folder = originals.folder / "begun"
    folder.mkdir()
    given = [*SAMPLING, "--image", str(originals.folder / "a.png"), "--audio", str(originals.folder / "a.wav")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dub, "_generate", _two_chunks)
        patch.setattr(infer, "open_weights", lambda args: opened)
        saved = ["--save_file", str(folder / "out"), "--save_frames", str(folder / "out.npy")]
        assert infer.main([*originals.weights, *given, *saved]) == 130
    assert sorted(os.listdir(folder)) == ["out.mp4", "out.npy", "out.resume"]
    return folder, [*originals.weights, *given, "--resume"]


@pytest.fixture
def not_generated(monkeypatch) -> None:
    """Runs raise Accepted in place of generating, once they have read what they would read."""
    monkeypatch.setattr(dub, "_generate", _read_to_the_end)
