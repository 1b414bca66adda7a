"""The command as a user meets it: what is refused and how it is said, and that nothing that stops a run loses anything."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import made_videos
import pytest
from made_videos import FLAGS

from itjax import records
from itjax.configs.infinitetalk_14b import PRESET
from itjax.preparation import folder
from itjax.preparation import prepare as preparing
from itjax.preparation.__main__ import main, parser, settings_of
from itjax.records import Layout
from itjax.training import reference_sampling
from itjax.training.config import References

ROOT = Path(__file__).parents[2]


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture
def begun(dataset, tmp_path) -> Path:
    """The dataset as it was when a run had made only its first shard, and was killed."""
    out = tmp_path / "begun"
    shutil.copytree(dataset.folder, out)
    shards = [shard.path for bucket in dataset.buckets for shard in bucket.shards]
    assert len(shards) == 4
    for name in ("dataset.json", *shards[1:]):
        (out / name).unlink()
    return out


@pytest.fixture
def short(tmp_path) -> Path:
    """A folder in which nothing is usable."""
    path = tmp_path / "short"
    path.mkdir()
    made_videos.write(path / "brief.mp4", made_videos.moving(10), made_videos.voice(0.4))
    (path / "film.mp4").write_text("no film")
    return path


# -- stopped and started again ----------------------------------------------------------------------------------------


def test_a_full_disk_and_ctrl_c_lose_nothing_and_change_no_byte(
    prepare, videos, dataset, begun, capsys, monkeypatch, disk_of
):
    whole = contents(dataset.folder)
    first = contents(begun).keys() | {"preparation/texts.safetensors"}
    with disk_of(100_000):
        assert prepare(videos, begun) == 3
    said = capsys.readouterr().err
    assert f"cannot write {begun}/48x48-p1/00001.arrayrecord" in said and "run the same command to continue" in said
    assert contents(begun).keys() == first  # nothing half made, nothing gone

    write, written = records.write_shard, []

    def interrupted(path, clips):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, clips)

    monkeypatch.setattr(records, "write_shard", interrupted)
    assert prepare(videos, begun) == 130
    assert "stopped; finished shards are kept" in capsys.readouterr().err
    assert contents(begun).keys() == first | {"48x48-p1/00001.arrayrecord"}

    monkeypatch.undo()
    assert prepare(videos, begun) == 0
    assert "15 of 15 files were already scanned" in capsys.readouterr().out
    assert contents(begun) == whole


# the command, in a process that kills itself when the first shard is there
KILLED_AFTER_A_SHARD = """
import os, signal, sys
from itjax import records
from itjax.preparation.__main__ import main

def write_shard(path, clips):
    whole(path, clips)
    os.kill(os.getpid(), signal.SIGKILL)

whole, records.write_shard = records.write_shard, write_shard
sys.exit(main())
"""


def test_killed_while_it_looks_and_while_it_encodes_it_makes_the_same_bytes(checkpoint, videos, dataset, tmp_path, prepare):
    out, first = tmp_path / "killed", tmp_path / "killed/48x48-p1/00000.arrayrecord"
    flags = [*map(str, (videos, out)), *FLAGS, "--checkpoint", str(checkpoint)]
    command = [sys.executable, "-c", KILLED_AFTER_A_SHARD, *flags]
    killed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    assert first.is_file() and not (out / "dataset.json").exists()
    # a kill while videos were looked through leaves some lines, the last one cut off
    scan = out / "preparation" / folder.SCAN_FILE
    scan.write_bytes(scan.read_bytes()[:-150])
    (out / "skipped.jsonl").unlink()
    assert prepare(videos, out) == 0
    assert contents(out) == contents(dataset.folder)


def test_a_shard_that_was_deleted_is_made_again_by_itself(prepare, videos, dataset, tmp_path):
    """As the error of a corrupt record says to do."""
    out = tmp_path / "data"
    shutil.copytree(dataset.folder, out)
    kept = out / "48x48-p1/00000.arrayrecord"
    before = kept.stat().st_mtime_ns
    (out / "48x48-p2/00000.arrayrecord").unlink()
    (out / "dataset.json").unlink()
    assert prepare(videos, out) == 0
    assert contents(out) == contents(dataset.folder) and kept.stat().st_mtime_ns == before


def test_a_finished_dataset_is_only_told_about(prepare, videos, dataset, monkeypatch, capsys):
    monkeypatch.setattr(preparing, "write_shards", lambda *_: pytest.fail("something was made"))
    assert prepare(videos, dataset.folder) == 0
    assert "4 clips of 5.4 s, 12 chunks, in 48x48-p1 (3), 48x48-p2 (1)" in capsys.readouterr().out


def test_ctrl_c_while_videos_are_looked_through_ends_soon(prepare, videos, tmp_path, monkeypatch, capsys):
    started, ended, told = threading.Event(), threading.Event(), []

    def endless(video, table, limits, stop):
        started.set()
        told.append(stop.wait(120))
        ended.set()
        raise InterruptedError("stopped")

    def press():
        started.wait()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(preparing, "scan", endless)
    threading.Thread(target=press).start()
    assert prepare(videos, tmp_path / "out") == 130
    # the thread that was just being started when the signal came is not waited for
    assert ended.wait(120) and all(told)  # none waited to its end
    assert "stopped" in capsys.readouterr().err


def test_a_full_disk_while_videos_are_looked_through_keeps_what_was_found(
    prepare, videos, tmp_path, capsys, monkeypatch, disk_of
):
    monkeypatch.setattr(preparing, "write_shards", lambda *_: pytest.fail("something was made"))
    out = tmp_path / "out"
    with disk_of(2600):  # the arguments fit, not all that is found
        assert prepare(videos, out) == 3
    assert f"cannot write {out}/preparation/scan.jsonl" in capsys.readouterr().err
    kept = folder.ScanFile(out / "preparation" / folder.SCAN_FILE).scanned
    assert 0 < len(kept) < 15


# -- refused ----------------------------------------------------------------------------------------------------------


def test_other_arguments_and_files_are_refused_with_the_differences(prepare, videos, begun, tmp_path, capsys):
    before, other = contents(begun), tmp_path / "other"
    shutil.copytree(videos, other)  # keeps the files' times
    (other / "cut.txt").write_text("A woman sings.")
    (other / "new.mp4").write_text("x")
    (other / "short.mp4").unlink()
    assert prepare(other, begun, "--max_seconds", "3", "--chunk_stride", "16") == 2
    said = capsys.readouterr().err
    for line in (
        f"{begun} was started with different arguments or files:",
        "  --chunk_stride: 8 before, 16 now",
        "  --max_seconds: 20.00 before, 3.00 now",
        "  file cut.txt: 14 bytes of ",
        "  file new.mp4: not set before, 1 bytes of ",
        "Use the same arguments and files to continue, choose another folder, or delete this one.",
    ):
        assert line in said, said
    assert "--frame_num" not in said and "thirty.mp4" not in said
    assert contents(begun) == before


def test_what_does_not_change_the_records_may_change(prepare, videos, dataset, capsys):
    assert prepare(videos, dataset.folder, "--batch", "3", "--min_seconds", "0.84") == 0


@pytest.mark.parametrize(
    ("given", "least"),
    [("", 101), ("--min_seconds 0", 81), ("--min_seconds 3.5", 88), ("--max_seconds 3.6", 90), ("--max_seconds 3.24", 81)],
)
def test_the_shortest_clip_is_of_use_for_m3_unless_another_is_given(given, least):
    limits = settings_of(parser("prepare").parse_args(["videos", "out", *given.split()]), PRESET).limits
    assert limits.min_frames == least
    if not given:
        usable = lambda frames: len(reference_sampling.usable_chunks(References("M3"), frames, Layout()))
        assert usable(least) == 1 and usable(least - 1) == 0


def test_a_dataset_in_use_is_refused(prepare, videos, begun, capsys):
    arguments = json.loads((begun / "preparation" / folder.ARGUMENTS_FILE).read_text())
    before = contents(begun)
    with folder.open_work_folder(begun, arguments):
        assert prepare(videos, begun) == 2
    assert f"Another process is writing {begun}" in capsys.readouterr().err
    assert contents(begun) == before


def test_a_folder_without_a_usable_clip_lists_every_file_with_the_reason(prepare, short, tmp_path, capsys):
    out = tmp_path / "out"
    assert prepare(short, out) == 2
    said = capsys.readouterr().err
    assert f"{short}: no usable clip in 2 file(s):" in said
    assert "skipped brief.mp4 0.00-0.40 s: too short: 10 frames (0.40 s) between cuts, at least 21 are required" in said
    assert "skipped film.mp4: cannot be read as" in said
    lines = (out / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == ["brief.mp4", "film.mp4"]
    (short / "film.mp4").unlink()  # nothing was begun: the next start may have other files
    assert prepare(short, out) == 2
    assert "no usable clip in 1 file(s)" in capsys.readouterr().err


def test_a_name_that_is_not_utf8_is_listed_like_any_other(prepare, short, tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9.mp4")
    shutil.copy(short / "brief.mp4", short / name)
    assert prepare(short, tmp_path / "out") == 2
    assert "the file name is not UTF-8: rename the file" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert lines[1]["file"] == name


def test_folders_that_cannot_be_are_named(prepare, videos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.doc").write_text("x")
    (tmp_path / "file").write_text("x")
    for source, out, said in [
        (tmp_path / "nowhere", "out", "nowhere: no such folder"),
        (tmp_path / "file", "out", "file: no such folder"),
        (tmp_path / "empty", "out", "empty: there are no videos in this folder"),
        (videos, "full", "full contains other files"),
        (videos, "file", "file is a file; choose a folder"),
        (videos, videos, "contains the videos"),
        (videos, videos.parent, "contains the videos"),
    ]:
        assert prepare(source, tmp_path / out) == 2
        told = capsys.readouterr().err
        assert said in told and told.startswith("python -m itjax.preparation: ") and "Traceback" not in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("--size 1080p", "--size 1080p: must be one of infinitetalk-480, infinitetalk-720"),
        ("--frame_num 16", "--frame_num 16: must be 4n+1"),
        ("--chunk_stride 6", "--reference_stride 4 must divide --chunk_stride 6"),
        ("--reference_stride 3", "--reference_stride 3 must divide"),
        ("--batch 0", "--batch 0: must be at least 1"),
        ("--shard_mb 0", "--shard_mb 0: must be above 0"),
        ("--shard_mb nan", "--shard_mb nan: must be above 0"),
        ("--min_seconds 30", "--min_seconds 30 --max_seconds 20: "),
        ("--min_seconds nan", "--min_seconds nan"),
        ("--max_seconds 0.5", "a clip contains at least one chunk of 0.68 s (--frame_num 17)"),
        ("--checkpoint nowhere", "nowhere"),
    ],
)
def test_bad_flags_are_named_before_anything_is_made(prepare, videos, tmp_path, capsys, wrong, said):
    assert prepare(videos, tmp_path / "out", *wrong.split()) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_checkpoint_it_says_how_to_make_one(videos, tmp_path, capsys):
    assert main([str(videos), str(tmp_path / "out")]) == 2
    assert "convert_weights.py" in capsys.readouterr().err
