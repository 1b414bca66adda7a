"""Full disks, wrong settings and bad places: each is told plainly, and costs nothing that was finished."""

import errno
import os

import numpy as np
import pytest
from small_runs import CHUNK, SIZE, append, frames_in, movie, open_small

from itjax.errors import OutputError, UserError
from itjax.media.writer import open_writer


def test_what_was_finished_plays_before_the_run_goes_on(tmp_path):
    run = open_small(tmp_path)
    for chunk in range(1, 4):
        append(run)
        assert frames_in(tmp_path / "a.mp4") == chunk * CHUNK
    run.close()
    with open_small(tmp_path, resume=True) as again:
        assert (again.next_chunk, again.frames_done, again.finished) == (3, 3 * CHUNK, False)
        np.testing.assert_array_equal(again.state["carry"], [0, 1, 2])


def test_unfinished_work_is_not_overwritten(tmp_path):
    with open_small(tmp_path) as run:
        append(run)
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(UserError, match=r"unfinished: 5 frames(.|\n)*--resume(.|\n)*delete .*a\.resume"):
        open_small(tmp_path)
    assert (tmp_path / "a.mp4").read_bytes() == before


def test_resuming_with_other_settings_names_them(tmp_path):
    with open_small(tmp_path, fingerprint={"only_before": "x"}) as run:
        append(run)
    with pytest.raises(UserError) as error:
        open_small(tmp_path, resume=True, fingerprint={"steps": 20}, size=(48, 48))
    lines = str(error.value).splitlines()[1:-1]
    assert [line.strip() for line in lines] == [
        "frame size: 32x48 before, 48x48 now",
        "only_before: x before, not set now",
        "steps: 40 before, 20 now",
    ]


def test_a_finished_run_is_known_and_a_new_one_replaces_it_with_its_first_chunk(tmp_path):
    with open_small(tmp_path, resume=True) as run:  # nothing there: begins
        assert (run.next_chunk, run.state) == (0, None)
        append(run)
        file = run.finish()
    finished = file.read_bytes()
    again = open_small(tmp_path, resume=True)
    assert again.finished and again.finish() == file and file.read_bytes() == finished
    assert os.listdir(tmp_path) == ["a.mp4"]

    for options in ({"resume": True, "fingerprint": {"seed": 2}}, {}):
        with open_small(tmp_path, **options) as run:
            assert not run.finished and file.read_bytes() == finished
    with open_small(tmp_path) as run:
        append(run)
        assert file.read_bytes() != finished


def test_a_video_of_something_else_is_not_cut(tmp_path):
    with open_small(tmp_path) as run:
        append(run)
    (tmp_path / "a.mp4").write_bytes(bytes(100_000))
    with pytest.raises(UserError, match=r"a\.mp4 is not the file"):
        open_small(tmp_path, resume=True)
    assert (tmp_path / "a.mp4").read_bytes() == bytes(100_000)


def test_a_broken_journal_is_the_users_to_judge(tmp_path):
    with open_small(tmp_path) as run:
        append(run)
    (tmp_path / "a.resume/state.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"state\.npz cannot be read"):
        open_small(tmp_path, resume=True)


def test_nothing_is_left_of_a_run_without_a_chunk(tmp_path):
    open_small(tmp_path).close()  # such as one with damaged weights
    assert not list(tmp_path.iterdir())


def test_two_processes_do_not_write_one_video(tmp_path):
    with open_small(tmp_path), pytest.raises(UserError, match="Another process is writing"):
        open_small(tmp_path, resume=True)
    open_small(tmp_path).close()


@pytest.mark.parametrize("victim", ["a.npy", "a.mp4", "state.npz", "whole.mp4"])
def test_a_disk_that_refuses_costs_no_finished_chunk(tmp_path, victim, disk_of):
    """Twice the same run; in one, each of the files in turn cannot grow in the second chunk (or at the end)."""
    results = {}
    for folder, refused in ((tmp_path / "smooth", ""), (tmp_path / "refused", victim)):
        folder.mkdir()
        array = folder / "a.npy" if victim == "a.npy" else None  # it is the longest: nothing else would meet the limit
        state = {"carry": np.zeros(30_000 if victim == "state.npz" else 1)}
        run = open_small(folder, save_frames=array)

        def one(run=run, array=array, state=state):
            frames = movie(CHUNK, run.next_chunk)
            run.append(frames, frames / np.float32(127.5) - 1 if array else None, state)

        one()
        kept = (folder / "a.mp4").read_bytes()
        if refused == "whole.mp4":
            with pytest.raises(OutputError, match="--resume"), disk_of(len(kept) // 2):
                run.finish()
        elif refused:
            wording = "" if victim == "state.npz" else rf"{victim} cannot be written: File too large"
            with pytest.raises(OutputError, match=rf"{wording}.*5 frames \(0.20 s\) are saved in .*--resume"):  # noqa: SIM117
                with disk_of((array or folder / "a.mp4").stat().st_size + 5_000):
                    one()
        assert (folder / "a.mp4").read_bytes() == kept and frames_in(folder / "a.mp4") == CHUNK
        assert array is None or len(np.load(array)) == CHUNK
        if refused:
            run.close()
            run = open_small(folder, resume=True, save_frames=array)
        assert run.next_chunk == 1
        one()
        results[refused] = run.finish().read_bytes()
        assert not (folder / "a.resume").exists()
    assert results[""] == results[victim]


def test_a_full_disk_is_named_and_the_chunk_may_be_tried_again(tmp_path, monkeypatch):
    pwrite, room = os.pwrite, [10**9]

    def filling(descriptor, data, offset):
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = pwrite(descriptor, data[: room[0]], offset)
        room[0] -= count
        return count

    with open_small(tmp_path) as run:
        append(run)
        kept = (tmp_path / "a.mp4").read_bytes()
        monkeypatch.setattr(os, "pwrite", filling)
        room[0] = 1000
        with pytest.raises(OutputError, match=r"a\.mp4 .*No space left on device.*5 frames"):
            append(run)
        assert (tmp_path / "a.mp4").read_bytes() == kept
        room[0] = 10**9
        append(run)
        assert frames_in(tmp_path / "a.mp4") == 2 * CHUNK


def test_a_disk_full_at_the_first_chunk_keeps_the_video_of_before(tmp_path, disk_of):
    (tmp_path / "a.mp4").write_bytes(b"older")
    run = open_small(tmp_path)
    with pytest.raises(OutputError, match="nothing was saved"), disk_of(2000):
        append(run)
    assert (tmp_path / "a.mp4").read_bytes() == b"older"
    assert not list(tmp_path.glob("*.part"))


def test_places_that_cannot_be_written_are_refused_at_once(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "b.mp4").mkdir()
    (tmp_path / "c.resume").write_text("a file")
    for name, words in {
        "missing/a.mp4": r"missing does not exist",
        "folder": "folder is a folder",
        "b": r"b\.mp4 is a folder",
        "c.mp4": r"c\.resume cannot be written",
    }.items():
        with pytest.raises(UserError, match=words):
            open_writer(tmp_path / name, SIZE, 25, None, {}, resume=False)
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        open_writer(tmp_path / "a", SIZE, 25, None, {}, resume=False, save_frames=tmp_path / "nowhere/a.npy")
    assert sorted(os.listdir(tmp_path)) == ["b.mp4", "c.resume", "folder"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that nobody can write, root included")
def test_a_folder_without_permission_is_refused_at_once():
    with pytest.raises(UserError, match="cannot be written"):
        open_writer("/proc/a.mp4", SIZE, 25, None, {}, resume=False)
