"""A disk that is full from any moment on costs no finished work: what was whole stays whole, and the work can go on."""

import errno
import itertools
import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from itjax.commands import convert
from itjax.errors import OutputError, UserError
from itjax.media.sound_track import SoundTrack
from itjax.media.writer import open_writer

CHUNKS, CHUNK = 3, 5


def _blocks():
    yield from np.random.default_rng(7).normal(0, 0.1, (40, 4000, 1)).astype(np.float32)


def _generate(folder: Path) -> None:
    """A loop with a carry, as generation is."""
    sound = SoundTrack(16000, 1, _blocks)
    with open_writer(folder / "a", (32, 48), 25, sound, {"seed": 3}, True, folder / "a.npy", CHUNKS * CHUNK) as run:
        carry = run.state["carry"] if run.state else np.array(0.5, np.float32)
        while run.next_chunk < CHUNKS and not run.finished:
            floats = np.random.default_rng(run.next_chunk).uniform(-1, 1, (CHUNK, 32, 48, 3)).astype(np.float32) * carry
            carry = np.asarray(np.abs(floats).mean() * 2, np.float32)
            run.append(np.uint8(np.rint((floats + 1) * 127.5)), floats, {"carry": carry})
        run.finish()


def _fill_disk_at(patch: pytest.MonkeyPatch, at: int) -> list[int]:
    """From the call with this number on, no call that needs room on the disk succeeds. Returns a list with the count."""
    count = [0]

    def refusing(call, needs_room):
        def wrapped(*args, **kwargs):
            if needs_room(*args):
                count[0] += 1
                if count[0] > at:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), args[0] if isinstance(args[0], Path) else None)
            return call(*args, **kwargs)

        return wrapped

    for name in ("pwrite", "mkdir", "fsync"):  # some file systems find out when they flush
        patch.setattr(os, name, refusing(getattr(os, name), lambda *_: True))
    patch.setattr(os, "open", refusing(os.open, lambda path, flags, *_: flags & os.O_CREAT))
    return count


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _frames(video: Path) -> int:
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_generation_at_every_write(tmp_path):
    (tmp_path / "smooth").mkdir()
    _generate(tmp_path / "smooth")
    expected, kept = _contents(tmp_path / "smooth"), []
    for at in itertools.count():
        folder = tmp_path / str(at)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            count = _fill_disk_at(patch, at)
            try:
                _generate(folder)
            except (OutputError, UserError) as error:
                assert "No space left on device" in str(error), at
        if count[0] <= at:
            break
        kept.append(_frames(folder / "a.mp4") if (folder / "a.mp4").exists() else 0)
        _generate(folder)
        assert _contents(folder) == expected, at
        shutil.rmtree(folder)
    assert _contents(folder) == expected
    assert kept == sorted(kept) and set(kept) == {0, CHUNK, 2 * CHUNK, 3 * CHUNK}, kept


@pytest.mark.slow
@pytest.mark.parametrize("to_torch", [False, True])
def test_conversion_at_files_of_every_size(to_torch, checkpoint, recordings, tmp_path, disk_of, capsys):
    official = recordings / "checkpoint"
    arguments = ["--to-torch", "--checkpoint", checkpoint]
    if not to_torch:
        arguments = ["--ckpt_dir", official / "Wan2.1-I2V-14B-480P", "--wav2vec_dir", official / "chinese-wav2vec2-base"]
        arguments += ["--infinitetalk_dir", official / "InfiniteTalk/single/infinitetalk.safetensors"]
    for nbytes in (0, 200, 5_000, 200_000):
        with disk_of(nbytes):
            status = convert.main([*map(str, arguments), "--output", str(tmp_path / "out")])
        said = capsys.readouterr().err
        assert status == 2 and "out" in said and "Traceback" not in said, said
        assert not os.listdir(tmp_path), nbytes
