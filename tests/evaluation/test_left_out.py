"""What could not be measured is said once for all videos that lack the same; what is not known has an empty cell."""

from itjax.evaluation.report import NO_NETWORKS, left_out, table
from itjax.evaluation.video import VideoMetrics


def video(name: str, *reasons: str, error: str = "") -> VideoMetrics:
    return VideoMetrics(name, 10, {}, {}, [f"{name}.mp4: left out: {reason}" for reason in reasons], error)


def test_one_line_for_the_same_reason():
    measured = [
        video("a", "camera: flat"),
        video("b", "camera: flat", "lips: no face"),
        video("c", error="c.mp4 is a picture."),
    ]
    assert left_out(measured) == [
        "2 videos, a.mp4 first: left out: camera: flat",
        "b.mp4: left out: lips: no face",
        "c.mp4 is a picture.",
    ]
    assert left_out([video("a", "camera: flat")], NO_NETWORKS._replace(left_out=("fid: no weights",))) == [
        "a.mp4: left out: camera: flat",
        "fid: no weights",
    ]


def test_a_single_video_has_no_interval():
    alone = video("a")._replace(numbers={"frozen": 0.5})
    assert "| frozen | 0.500 |  | 1 |" in table([alone])
    assert "| frozen | 0.500 | 0.500 to 0.500 | 2 |" in table([alone, alone])
