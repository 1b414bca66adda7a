"""What other processes and people do in the output folder: nothing of theirs is overwritten, nothing of ours is lost."""

import os

import numpy as np
import pytest
from small_runs import CHUNK, SIZE, append, frames_in, open_small

from itjax.errors import UserError
from itjax.media import journal, run_files


def test_a_second_process_leaves_the_first_chunk_of_the_first_alone(tmp_path, monkeypatch):
    """It comes while the first chunk is being written, to a.mp4.part, which it once removed before it took the lock."""
    replace = os.replace

    def meanwhile(source, target):
        if str(source).endswith(".part"):
            for resume in (False, True):
                with pytest.raises(UserError, match="Another process is writing"):
                    open_small(tmp_path, resume, save_frames=None)
        replace(source, target)

    with open_small(tmp_path) as run:
        monkeypatch.setattr(os, "replace", meanwhile)
        append(run)
        append(run)
        assert frames_in(run.finish()) == 2 * CHUNK


def test_a_lock_on_a_folder_that_is_gone_is_none(tmp_path, monkeypatch):
    """A process that waited at the lock, while the one before it finished and removed the folder, makes a new one."""
    lock_folder, tried = run_files.lock_folder, []

    def late(folder, refusal):
        handle = lock_folder(folder, refusal)
        if not tried:
            folder.rmdir()
        tried.append(handle)
        return handle

    monkeypatch.setattr(run_files, "lock_folder", late)
    with open_small(tmp_path) as run:
        append(run)
        assert len(tried) == 2 and journal.load(run.files.folder).chunks == 1


@pytest.mark.parametrize("name", ["a.mp4.part", "a.npy.part", "a.resume/next.npz", "a.resume/whole.mp4"])
def test_a_link_that_somebody_laid_is_not_followed(name, tmp_path):
    treasure = tmp_path / "treasure"
    treasure.write_text("mine")
    (tmp_path / "a.resume").mkdir()
    (tmp_path / name).symlink_to(treasure)
    with open_small(tmp_path, save_frames=tmp_path / "a") as run:
        frames = np.zeros((CHUNK, *SIZE, 3), np.float32)
        append(run, frames)
        run.finish()
    assert treasure.read_text() == "mine" and not (tmp_path / "a.mp4").is_symlink()


def test_a_resume_folder_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a.resume").symlink_to(tmp_path / "elsewhere")
    for resume in (False, True):
        with pytest.raises(UserError, match=r"a\.resume is a symbolic link"):
            open_small(tmp_path, resume)
    assert not os.listdir(tmp_path / "elsewhere")


@pytest.mark.parametrize("suffix", ["", ".mp4", ".npy"])
def test_names_too_long_are_refused(suffix, tmp_path):
    for length in (300, 249):  # of 249, only the names of the other files of the run are too long
        name = tmp_path / ("é" * (length // 2) + "n" * (length % 2) + suffix)
        files = {"save_frames": name} if suffix == ".npy" else {}
        with pytest.raises(UserError, match=r"cannot be written: File name too long"):
            run_files.output_files(tmp_path / "a" if files else name, **{"save_frames": None} | files)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["\ud800", "a\0b"])
def test_names_with_impossible_characters_are_refused(name, tmp_path):
    for names in ((tmp_path / name, None), (tmp_path / "a", tmp_path / name)):
        with pytest.raises(UserError, match=r"cannot be written: a name of a file cannot have these characters") as refusal:
            run_files.output_files(*names)
        assert ascii(name)[1:-1] in str(refusal.value)
    assert not os.listdir(tmp_path)


def test_a_pipe_is_no_place_for_a_video(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(UserError, match=r"a\.mp4 is a device or a pipe"):
        open_small(tmp_path)
