"""A study's folder: it has what the page needs and does not tell the methods; bad input leaves nothing behind."""

import json
import os
import shutil
import tomllib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from study_parts import METHODS, NAMES, SOUND, write_methods

from itjax.media.pictures import open_source
from itjax.media.video_file import write_video
from itjax.study import make as making
from itjax.study.__main__ import main
from itjax.study.plan import QUESTIONS, read_key

ROOT = Path(__file__).parents[2]
PAGE = {"index.html", "page.css", "page.js", "order.js"}


def page_data(folder):
    return json.loads((folder / "study.js").read_text().removeprefix("const STUDY = ").removesuffix(";\n"))


def test_the_folder_shows_the_videos_but_not_their_methods(study, videos):
    folder, key = study
    data = page_data(folder)
    assert {path.name for path in folder.iterdir()} == PAGE | {"study.js", "videos"}
    shown = {video: (item.name, method) for item in key.items.values() for video, method in item.videos.items()}
    assert sorted(shown.values()) == sorted((name, method) for name in NAMES for method in METHODS)
    assert {path.stem for path in (folder / "videos").iterdir()} == shown.keys()
    for video, (name, method) in shown.items():
        assert (folder / "videos" / f"{video}.mp4").read_bytes() == (videos / method / f"{name}.mp4").read_bytes()
    assert {item["id"]: item["videos"] for item in data["items"]} == {n: sorted(i.videos) for n, i in key.items.items()}
    assert data["title"] == key.title == "A study" and data["study"] == key.study
    assert [question["id"] for question in data["questions"]] == [question.id for question in QUESTIONS]
    told = (folder / "study.js").read_text()  # the other files are the same in all studies
    assert not any(name in told for name in (*METHODS, *NAMES))
    in_time = sorted((folder / "videos").iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name))
    assert in_time == sorted(in_time)  # neither do the files' times


def test_the_page_opens_nothing_from_elsewhere(study):
    told = "".join((study[0] / name).read_text() for name in PAGE)
    assert "//" not in told.replace("// ", "") and "fetch(" not in told and "innerHTML" not in told


def test_the_page_is_shipped():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = setuptools["package-data"]["itjax.study"]
    files = {path for pattern in patterns for path in (ROOT / "itjax/study").glob(pattern)}
    assert {path.name for path in files} == PAGE


def test_the_command_says_what_to_hand_out(videos, tmp_path, capsys):
    assert main([str(videos), str(tmp_path / "out"), "--title", "</script>\u2028", "--items", "2", "--per_item", "2"]) == 0
    told = capsys.readouterr().out
    assert "2 items of 3 methods" in told and "out.key.json tells the methods: keep it, and do not hand it out." in told
    key = read_key(tmp_path / "out.key.json")
    assert page_data(tmp_path / "out")["title"] == key.title == "</script>\u2028"
    assert len(key.items) == 2 and {len(item.videos) for item in key.items.values()} == {2}
    assert len(list((tmp_path / "out/videos").iterdir())) == 4


def test_references_are_shown_beside(videos, tmp_path):
    sources = tmp_path / "sources"
    sources.mkdir()
    shutil.copy(videos / "good/one.mp4", sources)
    for name, suffix in (("two", ".png"), ("three", ".jpg"), ("four", ".webp")):
        Image.new("RGB", (20, 20), (200, 10, 10)).save(sources / f"{name}{suffix}")
    key = making.make(videos, tmp_path / "out", "t", reference=sources)
    for item in page_data(tmp_path / "out")["items"]:
        original = next(sources.glob(f"{key.items[item['id']].name}.*"))
        assert (tmp_path / "out/videos" / item["reference"]).read_bytes() == original.read_bytes()
        assert Path(item["reference"]).suffix == original.suffix and original.stem not in item["reference"]


def refused(videos, tmp_path, capsys, *flags):
    """The error message; nothing may have been made."""
    before = sorted(path for path in tmp_path.rglob("*"))
    assert main(["make", str(videos), str(tmp_path / "out"), *flags]) == 2
    assert sorted(path for path in tmp_path.rglob("*")) == before
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def encoded(path, codec, pixels, sound=True, options=None):
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, 25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 32, 32, pixels
        track = container.add_stream("aac", 16000, layout="mono") if sound else None
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 80 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track:
            samples = av.AudioFrame.from_ndarray(SOUND[None, :4096], format="fltp", layout="mono")
            samples.sample_rate = 16000
            container.mux(track.encode(samples))
            container.mux(track.encode(None))


def cut_off(path):
    noise = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), np.uint8)
    write_video(path, noise, SOUND)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN = {
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "text": (lambda path: path.write_text("no video"), "cannot be read as an image or a video"),
    "cut off": (lambda path: cut_off(path), "Provide a complete video."),
    "picture": (lambda path: Image.new("RGB", (9, 9)).save(path, "PNG"), "this is a picture, not a video"),
    "silent": (lambda path: encoded(path, "libx264", "yuv420p", sound=False), "the video has no sound"),
    "codec": (lambda path: encoded(path, "mpeg4", "yuv420p"), "not every browser plays videos in mpeg4. Convert it"),
    "pixels": (lambda path: encoded(path, "libx264", "yuv444p"), "not every browser plays pixels in yuv444p"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_video_that_cannot_be_shown_is_refused(kind, tmp_path, videos, capsys):
    copy = tmp_path / "videos"
    shutil.copytree(videos, copy)
    damage, expected = BROKEN[kind]
    damage(copy / "poor/two.mp4")
    told = refused(copy, tmp_path, capsys)
    assert "poor/two.mp4" in told and expected in told


def test_hdr_is_shown_as_it_is(tmp_path):
    encoded(tmp_path / "hdr.mp4", "libx264", "yuv420p", options={"x264-params": "transfer=smpte2084"})
    with pytest.warns(UserWarning, match="HDR"):
        open_source(tmp_path / "hdr.mp4")
    making.check_video(tmp_path / "hdr.mp4")


def test_methods_must_have_the_same_names(tmp_path, videos, capsys):
    copy = tmp_path / "videos"
    assert "no such folder" in refused(copy, tmp_path, capsys)
    shutil.copytree(videos, copy)
    (copy / "medium/two.mp4").rename(copy / "medium/other.mp4")
    assert "good: other methods have videos that are missing here: other.mp4" in refused(copy, tmp_path, capsys)
    (copy / "medium/other.mp4").unlink()
    assert "medium: other methods have videos that are missing here: two.mp4" in refused(copy, tmp_path, capsys)
    for path in (copy / "medium").iterdir():
        path.unlink()
    assert "medium: there is no mp4 in this folder" in refused(copy, tmp_path, capsys)
    shutil.rmtree(copy / "medium"), shutil.rmtree(copy / "poor")
    assert "at least two methods, but there is only one (good)" in refused(copy, tmp_path, capsys)
    shutil.rmtree(copy / "good")
    assert "but there is none" in refused(copy, tmp_path, capsys)


def test_settings_that_do_not_fit_are_refused(tmp_path, videos, capsys):
    assert "5 items are requested, but each method has only 4" in refused(videos, tmp_path, capsys, "--items", "5")
    assert "2 videos each cannot show all 3" in refused(videos, tmp_path, capsys, "--items", "1", "--per_item", "2")
    sources = tmp_path / "sources"
    flags = "--reference", str(sources)
    assert "sources: no such folder" in refused(videos, tmp_path, capsys, *flags)
    sources.mkdir()
    assert "the reference of four should be four with" in refused(videos, tmp_path, capsys, *flags)
    Image.new("RGB", (9, 9)).save(sources / "four.png")
    shutil.copy(sources / "four.png", sources / "four.jpg")
    assert "both four.png and four.jpg exist: remove one" in refused(videos, tmp_path, capsys, *flags)
    (sources / "four.jpg").unlink()
    shutil.copy(videos / "good/four.mp4", sources / "four.png")
    assert "four.png: this is a video, not an image" in refused(videos, tmp_path, capsys, *flags)
    write_methods(tmp_path / "pair", ("a", "b"), ("x",))
    assert "2 methods, too few to rank 3" in refused(tmp_path / "pair", tmp_path, capsys, "--per_item", "3")
    with pytest.raises(SystemExit):
        main([str(videos), str(tmp_path / "out"), "--items", "0"])


@pytest.mark.parametrize("existing", ["out", "out.key.json"])
def test_an_older_study_is_kept(existing, tmp_path, videos, capsys):
    (tmp_path / existing).write_text("old")
    assert f"{existing} exists: choose another folder" in refused(videos, tmp_path, capsys)
    assert (tmp_path / existing).read_text() == "old"


def test_a_place_that_cannot_be_is_refused(videos, tmp_path, capsys):
    assert main([str(videos), str(tmp_path / "no/out")]) == 2
    assert "the folder" in capsys.readouterr().err
    assert main([str(videos), str(videos / "out")]) == 2
    assert "is inside the folder of the videos" in capsys.readouterr().err
    assert {path.name for path in videos.iterdir()} == set(METHODS)


def test_a_full_disk_leaves_nothing(videos, tmp_path, disk_of, capsys):
    with disk_of(3000):
        assert main([str(videos), str(tmp_path / "out")]) == 3
    assert "cannot write" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_no_key_is_left_without_its_study(videos, tmp_path, monkeypatch):
    replace = os.replace

    def failing(source, target):
        if Path(target).name == "out":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    assert main([str(videos), str(tmp_path / "out")]) == 130 and not list(tmp_path.iterdir())
