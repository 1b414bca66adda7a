"""A disk that is full from any moment on costs no finished work: what was whole stays whole, and the work can go on."""

import errno
import os
import shutil
from pathlib import Path

import av
import pytest
from full_disk import FullDisk, full_disks
from small_loop import CHUNK, loop

from itjax.commands import convert
from itjax.errors import OutputError, UserError

CHUNKS = 2


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _frames(video: Path) -> int:
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_generation_at_every_write(tmp_path):
    (tmp_path / "smooth").mkdir()
    loop(tmp_path / "smooth", CHUNKS)
    expected, kept = _contents(tmp_path / "smooth"), []
    for folder, disk in full_disks(tmp_path):
        with pytest.MonkeyPatch.context() as patch:
            disk.install(patch)
            try:
                loop(folder, CHUNKS)
            except (OutputError, UserError) as error:
                assert "No space left on device" in str(error), folder.name
        kept.append(_frames(folder / "a.mp4") if (folder / "a.mp4").exists() else 0)
        loop(folder, CHUNKS)
        assert _contents(folder) == expected, folder.name
        shutil.rmtree(folder)
    assert set(kept) == {0, CHUNK, 2 * CHUNK}, kept


@pytest.mark.parametrize("reason", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_to_is_named_before_the_work(reason, tmp_path, monkeypatch):
    FullDisk(tmp_path, 0, False, reason).install(monkeypatch)  # of a read-only disk, and of somebody else
    with pytest.raises((OutputError, UserError), match=os.strerror(reason)) as refused:
        loop(tmp_path, CHUNKS)
    assert str(tmp_path) in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("to_torch", [False, True])
def test_conversion_at_files_of_every_size(to_torch, checkpoint, recordings, tmp_path, disk_of, capsys, caplog):
    official = recordings / "checkpoint"
    arguments = ["--to-torch", "--checkpoint", checkpoint]
    if not to_torch:
        arguments = ["--ckpt_dir", official / "Wan2.1-I2V-14B-480P", "--wav2vec_dir", official / "chinese-wav2vec2-base"]
        arguments += ["--infinitetalk_dir", official / "InfiniteTalk/single/infinitetalk.safetensors"]
    for nbytes in (0, 200, 5_000, 200_000):
        with disk_of(nbytes):
            status = convert.main([*map(str, arguments), "--output", str(tmp_path / "out")])
        said = capsys.readouterr().err
        assert status == 2 and "out" in said and said.count("\n") == 1 and not caplog.records, (said, caplog.text)
        assert not os.listdir(tmp_path), nbytes
