"""A full disk at every write of a preparation: finished shards stay whole, and the same command makes the same dataset.

The networks and the decoder are replaced by tables of numbers, so that a preparation takes some milliseconds.
"""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from full_disk import full_disks

from itjax import records
from itjax.configs.tiny import PRESET
from itjax.preparation import __main__ as command
from itjax.preparation import encode
from itjax.preparation import prepare as preparing
from itjax.preparation.clips import ScannedVideo, Skipped
from itjax.preparation.encode import EncodedFrames, Encoders
from itjax.preparation.shards import LoadedClip
from itjax.weights.sources import Weights

FLAGS = ["--frame_num", "5", "--chunk_stride", "4", "--reference_stride", "4", "--shard_mb", "0.01", "--checkpoint", "tiny"]
CLIPS, FRAMES, SIDE = 2, 9, 32


def _table(*shape: int) -> np.ndarray:
    return np.float16(np.arange(np.prod(shape)).reshape(shape) % 7)


def _scan(video, table, limits, stop) -> ScannedVideo:
    return ScannedVideo(video.name, SIDE, SIDE, 1, video.name, ((0, FRAMES),), (Skipped(FRAMES, FRAMES + 3, "too short"),))


def _clips(videos, scanned, spans):
    for span in spans:
        yield LoadedClip(
            scanned[span.video].name,
            scanned[span.video].caption,
            span.start,
            np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8),
            [],
            None,
            None,
        )


def _frames(encoders, pixels, layout) -> EncodedFrames:
    networks = PRESET.networks
    latents = (2, SIDE // networks.vae.spatial_stride, SIDE // networks.vae.spatial_stride, networks.vae.z_dim)
    starts, references = records.chunk_starts(FRAMES, layout), records.reference_frames(FRAMES, layout)
    tokens = _table(len(references), networks.clip.tokens, networks.clip.width)
    return EncodedFrames(_table(len(starts), *latents), _table(len(references), *latents), tokens, None)


def _unread(*_):
    raise AssertionError("a network was read")


def _texts(weights, texts, mesh, program, batch):
    dit = PRESET.networks.dit
    yield from np.ones((len(texts), dit.text_len, dit.text_dim), np.float32)


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """prepare(out) -> the exit status."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(CLIPS):
        (videos / f"{number}.mp4").write_text("stands for a video")
    audio = PRESET.networks.dit.audio
    speech = _table(1, FRAMES + 2 * records.SPEECH_MARGIN, audio.layers, audio.channels)
    monkeypatch.setattr(command, "open_converted", lambda *_: Weights(PRESET, Path(), "tiny", "tiny", _unread))
    monkeypatch.setattr(command, "keep_compiled_programs", lambda: None)
    monkeypatch.setattr(preparing, "scan", _scan)
    monkeypatch.setattr(preparing, "read_clips", _clips)
    monkeypatch.setattr(encode, "token_counts", lambda weights, texts: [3] * len(texts))
    monkeypatch.setattr(encode, "encode_texts", _texts)
    monkeypatch.setattr(encode, "open_encoders", lambda weights, mesh, program, batch: Encoders(program, {}, {}, mesh, 1))
    monkeypatch.setattr(encode, "encode_frames", _frames)
    monkeypatch.setattr(encode, "encode_speech", lambda tracks, start, stop: speech)
    return lambda out: command.main([str(videos), str(out), *FLAGS])


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def whole(prepare, tmp_path) -> dict[str, bytes]:
    """The dataset as it is made on a disk with room."""
    assert prepare(tmp_path / "whole") == 0
    expected = _contents(tmp_path / "whole")
    assert len([name for name in expected if name.endswith(".arrayrecord")]) == CLIPS
    return expected


def _kept(out: Path, whole: dict[str, bytes]) -> int:
    """The number of whole shards; nothing else may look like one."""
    found = (
        {name: data for name, data in _contents(out).items() if not name.startswith("preparation/")} if out.exists() else {}
    )
    assert found.items() <= whole.items(), found.keys()
    return len([name for name in found if name.endswith(".arrayrecord")])


def test_at_every_write(prepare, whole, tmp_path, capsys):
    kept, done = [], 0
    for folder, disk in full_disks(tmp_path):
        out = folder / "out"
        with pytest.MonkeyPatch.context() as patch:
            disk.install(patch)
            status = prepare(out)
        said = capsys.readouterr().err
        if status == 0:  # there was room, or it failed to flush the name of a file that has it
            assert _contents(out) == whole and (disk.only or disk.count <= disk.at), folder.name
            done += 1
        else:
            assert status == 3 and said.count("\n") == 2, (folder.name, status, said)
            assert "No space left on device" in said and str(out) in said, said
            assert "finished shards are kept: free some space and run the same command to continue" in said
        kept.append(_kept(out, whole))
        assert prepare(out) == 0
        assert _contents(out) == whole, folder.name
        shutil.rmtree(folder)
    assert done < 20 and set(kept) == set(range(CLIPS + 1)), kept


def test_where_no_file_can_have_more_than_some_bytes(prepare, whole, tmp_path, disk_of, capsys):
    """As `ArrayRecordWriter` meets a full disk, whose calls are none of Python's."""
    largest = max(map(len, whole.values()))
    for nbytes in (0, 1, 100, 1000, largest // 3, largest - 1):
        out = tmp_path / str(nbytes)
        with disk_of(nbytes):
            status = prepare(out)
        said = capsys.readouterr().err
        assert status == 3 and f"cannot write {out}" in said and said.count("\n") == 2, said
        _kept(out, whole)
        with contextlib.suppress(FileNotFoundError):
            assert not list(out.rglob("*.tmp-*"))
        assert prepare(out) == 0
        assert _contents(out) == whole, nbytes
