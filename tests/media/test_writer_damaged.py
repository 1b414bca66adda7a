"""Resume folders that were damaged, edited, or begun by another version: one sentence, and the video stays as it is."""

import json
import os
import shutil

import numpy as np
import pytest
from small_runs import CHUNK, append, frames_in, movie, open_small

from itjax.errors import OutputError, UserError
from itjax.media import fragments, journal, writer
from itjax.version import __version__


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of two chunks, to be continued."""
    folder = tmp_path_factory.mktemp("begun")
    with open_small(folder) as run:
        append(run)
        append(run)
    return folder


@pytest.fixture
def folder(begun, tmp_path):
    """A copy of that run."""
    return shutil.copytree(begun, tmp_path / "copy")


def edit(folder, change, save=np.savez):
    """Writes the state anew, with its own checksums: `change` alters the record, or the arrays."""
    file = folder / "a.resume/state.npz"
    with np.load(file) as content:
        arrays = dict(content)
    record = json.loads(arrays.pop("journal").tobytes())
    change(record, arrays)
    if "journal" not in arrays:
        arrays["journal"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    save(file, **arrays)


def refused(folder, match):
    before = (folder / "a.mp4").read_bytes()
    for _ in range(2):  # the first try changes nothing
        with pytest.raises(UserError, match=match) as error:
            open_small(folder, resume=True)
        assert "a.resume" in str(error.value)
    assert (folder / "a.mp4").read_bytes() == before


COUNTS = {
    "packets below 0": {"packets": -1},
    "too few packets": {"packets": 1},
    "no chunk": {"chunks": 0},
    "another chunk": {"chunks": 3},
    "frames lost": {"frames": 7},
    "frames beyond all": {"frames": 10**30},
    "frames as text": {"frames": "10"},
    "a fragment cut": {"video_bytes": 100},
    "nothing kept": {"video_bytes": 0},
    "more than there is": {"video_bytes": 10**30},
    "another run": {"mark": "0" * 32},
    "a mark that is none": {"mark": None},
    "a fingerprint that is none": {"fingerprint": ["seed"]},
    "a fingerprint of lists": {"fingerprint": {"seed": [1]}},
    "another field": {"sound_packets": 11},
}


@pytest.mark.parametrize("change", COUNTS.values(), ids=COUNTS)
def test_an_edited_record(change, folder):
    edit(folder, lambda record, _: record.update(change))
    refused(folder, r"state\.npz (cannot be read|contradicts)|started with other settings|is not the file")


def test_a_record_that_ends_at_an_earlier_chunk(folder):
    data = (folder / "a.mp4").read_bytes()
    second = data.rindex(b"moof") - 4
    assert fragments.count(folder / "a.mp4", second) == 1 and fragments.count(folder / "a.mp4", len(data)) == 2
    edit(folder, lambda record, _: record.update(video_bytes=second))
    refused(folder, r"state\.npz contradicts")


def test_a_record_without_a_field_names_both_versions(folder):
    """As of a version that named it otherwise: this was a TypeError once."""

    def older(record, _):
        record["bytes"] = record.pop("video_bytes")
        record["fingerprint"]["itjax"] = "0.0.7"

    edit(folder, older)
    refused(folder, rf"of another version of itjax 0\.0\.7 than this one, {__version__}")


def test_a_run_of_another_version_is_not_continued(folder, monkeypatch):
    monkeypatch.setattr(writer, "__version__", "9.9")
    refused(folder, rf"itjax: {__version__} before, 9\.9 now")


def test_a_video_finished_by_another_version_is_finished(folder, monkeypatch):
    with open_small(folder, resume=True) as run:
        run.finish()
    monkeypatch.setattr(writer, "__version__", "9.9")
    with open_small(folder, resume=True) as run:
        assert run.finished


ARRAYS = {
    "text": {"state.carry": np.array(["a"])},
    "no state": {"carry": np.zeros(3)},
    "deep": {"journal": np.frombuffer(b"[" * 100_000, np.uint8)},
    "a list": {"journal": np.frombuffer(b"[]", np.uint8)},
}


@pytest.mark.parametrize("change", ARRAYS.values(), ids=ARRAYS)
def test_edited_arrays(change, folder):
    edit(folder, lambda _, arrays: arrays.update(change))
    refused(folder, r"state\.npz cannot be read")


def test_a_compressed_state(folder):
    """It could take any amount of memory."""
    edit(folder, lambda *_: None, np.savez_compressed)
    refused(folder, r"state\.npz cannot be read \(compressed\)")


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to nowhere", "npy"])
def test_a_state_that_is_no_such_file(kind, folder):
    file = folder / "a.resume/state.npz"
    file.unlink()
    makers = {
        "pipe": os.mkfifo,
        "folder": os.mkdir,
        "link to nowhere": lambda path: path.symlink_to("nowhere"),
        "npy": lambda path: path.open("wb").write(b"\x93NUMPY") and None,
    }
    makers[kind](file)
    refused(folder, r"state\.npz cannot be read")


# -- what is lost, and what is not ------------------------------------------------------------------------------------


def test_a_folder_deleted_during_the_run_is_not_said_to_be_kept(tmp_path):
    run = open_small(tmp_path)
    append(run)
    shutil.rmtree(tmp_path / "a.resume")
    with pytest.raises(OutputError, match=r"5 frames .* are saved in .*a\.mp4.*a\.resume was deleted.* start over"):
        append(run)
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(OutputError, match=r"a\.mp4 was deleted or moved during the run: the 5 frames in it are lost"):
        append(run)


def test_room_for_the_second_copy_is_asked_for_before_it_is_made(tmp_path, monkeypatch):
    with open_small(tmp_path) as run:
        append(run)
        usage = shutil.disk_usage(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
            patch.setattr(fragments, "defragment", lambda *_: pytest.fail("there is no room"))
            with pytest.raises(OutputError, match=r"finished file needs 0\.\d MB besides.*5 frames .*saved.*--resume"):
                run.finish()
        assert frames_in(run.finish()) == CHUNK


def test_room_for_the_whole_is_asked_for_at_the_start(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(OutputError, match=r"a\.npy: it needs 18\.4 MB, but only 1\.0 MB are free"):
        open_small(tmp_path, save_frames=tmp_path / "a", num_frames=1000)
    assert not os.listdir(tmp_path)
    with open_small(tmp_path, num_frames=1000) as run:
        run.append(movie(CHUNK), None, {})
    assert not journal.partial_file(tmp_path / "a.mp4").exists()
