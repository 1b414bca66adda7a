"""`python -m itjax.synthetic`: what it writes is what the preparation of videos takes."""

import json

import numpy as np
import pytest

from itjax.media.pictures import open_source
from itjax.preparation.videos import check_companions, find_videos, read_boxes, read_caption
from itjax.synthetic import clip as clips
from itjax.synthetic.__main__ import main

FLAGS = ["--clips", "2", "--seconds", "2", "--size", "48", "96"]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_one_person(tmp_path, capsys):
    assert main([str(tmp_path), *FLAGS]) == 0
    assert "2 clips, 100 frames written" in capsys.readouterr().out
    videos = find_videos(tmp_path / "videos", tmp_path / "dataset")
    assert [video.name for video in videos] == ["drawn0000-00000.mp4", "drawn0000-00001.mp4"]
    for number, video in enumerate(videos):
        check_companions(video)
        clip = clips.make((0, number), 2.0, 48, 96)
        assert video.persons == 1 and read_caption(video) == clip.scene.prompt
        source = open_source(video.path)
        assert source.size == (48, 96) and source.num_frames == 50
        region = open_source(video.region)
        truth = json.loads((tmp_path / "truth" / f"{video.path.stem}.json").read_text())
        assert truth["prompt"] == clip.scene.prompt and truth["num_frames"] == 50 and truth["size"] == [48, 96]
        who = truth["people"][0]
        np.testing.assert_allclose(who["mouth"]["jaw"], clip.spoken[0].mouth.jaw, atol=1e-4)
        assert len(who["seen"]["mouth_box"]) == 50 and who["identity"]["woman"] in (True, False)
        for frame in (0, 30):
            left, top, right, bottom = who["seen"]["mouth_box"][frame]
            bright = region.frame(frame).mean(axis=2) > 127
            assert bright[int((top + bottom) / 2), int((left + right) / 2)] and 0 < bright.mean() < 0.2
        assert who["phonemes"] and all(len(p) == 3 for p in who["phonemes"])


def test_two_persons_and_the_same_again(tmp_path, capsys):
    assert main([str(tmp_path / "a"), *FLAGS, "--persons", "2", "--seed", "7"]) == 0
    (video, _) = find_videos(tmp_path / "a" / "videos", tmp_path / "dataset")
    check_companions(video)
    (top, left, bottom, right), second = read_boxes(video)
    assert video.persons == 2 and 0 <= top < bottom <= 48 and 0 <= left < right <= second[1] < second[3] <= 96
    before = contents(tmp_path / "a")
    assert len(before) == 2 * 7
    (tmp_path / "a" / "truth" / "drawn0007-00001.json").unlink()  # as if it had been stopped there
    assert main([str(tmp_path / "a"), *FLAGS, "--persons", "2", "--seed", "7"]) == 0
    assert "50 frames written" in capsys.readouterr().out
    assert contents(tmp_path / "a") == before


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--size", "47", "64"], "47: must be an even number"),
        (["--clips", "0"], "0: must be positive"),
        (["--clips", "1.5"], "1.5: must be a whole number"),
        (["--seconds", "-1"], "-1: must be"),
        (["--seconds", "nan"], "nan: must be from 0.04"),
        (["--seconds", "inf"], "inf: must be from 0.04"),
        (["--seconds", "0.01"], "0.01: must be from 0.04"),
        (["--seed", "-1"], "-1: must not be negative"),
    ],
)
def test_flags_that_make_no_sense_are_refused(tmp_path, capsys, flags, said):
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), *flags])
    assert ended.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("other", [["--seconds", "1"], ["--size", "64"], ["--persons", "2"]])
def test_clips_of_other_flags_are_not_kept_in_silence(tmp_path, capsys, other):
    truth = {"num_frames": 50, "size": [48, 96], "people": [{}]}
    (tmp_path / "truth").mkdir()
    for number in range(2):
        (tmp_path / "truth" / f"drawn0000-{number:05d}.json").write_text(json.dumps(truth))
    assert main([str(tmp_path), *FLAGS]) == 0 and "0 frames written" in capsys.readouterr().out
    assert main([str(tmp_path), *FLAGS, *other]) == 2
    assert "drawn0000-00000.json: this clip was drawn with another" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"people": 1}'])
def test_what_is_no_ground_truth_is_refused(tmp_path, capsys, content):
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "drawn0000-00000.json").write_text(content)
    assert main([str(tmp_path), *FLAGS]) == 2
    assert "drawn0000-00000.json: it is not the ground truth of a clip" in capsys.readouterr().err


def test_a_full_disk_is_told(tmp_path, capsys, disk_of):
    with disk_of(2000):
        assert main([str(tmp_path), *FLAGS]) == 3
    assert "itjax.synthetic: cannot write" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.json")) and main([str(tmp_path), *FLAGS]) == 0
