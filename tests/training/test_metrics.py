"""What a run reports can be read back: the JSON lines, and TensorBoard's records with their checksums."""

import contextlib
import io
import json
import struct

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from itjax.errors import OutputError, UserError
from itjax.training.metrics import MetricLog, loss_by_band


def lines(folder):
    def refused(name):
        raise ValueError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refused) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def records(data):
    """TFRecord framing: length, its checksum, the record, its checksum."""
    while data:
        (length,), (length_sum,) = struct.unpack("<Q", data[:8]), struct.unpack("<I", data[8:12])
        record, (record_sum,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])
        assert (length_sum, record_sum) == (masked_crc32c(data[:8]), masked_crc32c(record))
        yield record
        data = data[16 + length :]


def events(folder):
    """As TensorBoard reads them: file by file in the order of names."""
    files = sorted((folder / "tensorboard").iterdir())
    assert all(".tfevents." in file.name for file in files)
    return [Event.FromString(record) for file in files for record in records(file.read_bytes())]


def shown(folder):
    """{(step, name): number}, with what a later START takes back left out."""
    found = {}
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            found = {key: number for key, number in found.items() if key[0] < event.step}
        found |= {(event.step, value.tag): value.simple_value for value in event.summary.value}
    return found


def test_both_files_hold_what_was_written_before_the_log_is_closed(tmp_path):
    log = MetricLog(tmp_path / "run", 0)
    log.write(10, {"loss": np.float32(0.5), "speed/steps_per_second": 2})
    log.write(20, {"loss": 0.25})
    assert lines(tmp_path / "run") == [{"step": 10, "loss": 0.5, "speed/steps_per_second": 2.0}, {"step": 20, "loss": 0.25}]
    assert events(tmp_path / "run")[0].file_version == "brain.Event:2"
    assert shown(tmp_path / "run") == {(10, "loss"): 0.5, (10, "speed/steps_per_second"): 2, (20, "loss"): 0.25}
    log.close()
    log.close()


def test_what_is_no_finite_number_is_null(tmp_path):
    with MetricLog(tmp_path, 0) as log:
        log.write(1, {"a": float("nan"), "b": float("inf"), "c": -np.float32("inf"), "d": 1.0})
    assert lines(tmp_path) == [{"step": 1, "a": None, "b": None, "c": None, "d": 1.0}]
    assert np.isnan(shown(tmp_path)[1, "a"]) and shown(tmp_path)[1, "b"] == np.inf


@pytest.mark.parametrize("torn", ["", '{"step": 50, "lo', '{"step": 40, "loss": 4.0}', "\0\0\0\0"])
def test_a_resumed_run_takes_back_the_steps_it_makes_again(torn, tmp_path):
    with MetricLog(tmp_path, 0) as log:
        for step in (10, 20, 30):
            log.write(step, {"loss": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)  # by a kill: no end of line
    with MetricLog(tmp_path, 20) as log:
        assert [line["step"] for line in lines(tmp_path)] == [10, 20]
        assert shown(tmp_path) == {(10, "loss"): 10, (20, "loss"): 20}
        log.write(30, {"loss": 3})
    assert lines(tmp_path)[1:] == [{"step": 20, "loss": 20.0}, {"step": 30, "loss": 3.0}]
    assert shown(tmp_path) == {(10, "loss"): 10, (20, "loss"): 20, (30, "loss"): 3}


def test_a_last_line_that_lacks_only_its_end_is_kept_whole(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "loss": 1.0}')
    with MetricLog(tmp_path, 10) as log:
        log.write(20, {"loss": 2})
    assert lines(tmp_path) == [{"step": 10, "loss": 1.0}, {"step": 20, "loss": 2.0}]


def test_a_new_run_keeps_nothing(tmp_path):
    for loss in (1, 2):
        with MetricLog(tmp_path, 0) as log:
            log.write(0, {"loss": loss})
    assert lines(tmp_path) == [{"step": 0, "loss": 2.0}] and shown(tmp_path) == {(0, "loss"): 2}


@pytest.mark.parametrize("line", ["loss 1", "[1]", '{"loss": 1}', "{}"])
def test_a_file_of_something_else_is_refused_and_left_alone(line, tmp_path):
    content = f'{{"step": 1}}\n{line}\n{{"step": 3}}\n'
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: not the report of a step.*move the file away"):
        MetricLog(tmp_path, 3)
    assert (tmp_path / "metrics.jsonl").read_text() == content


def test_a_metric_cannot_take_the_place_of_the_step(tmp_path):
    with MetricLog(tmp_path, 0) as log, pytest.raises(ValueError, match="step"):
        log.write(1, {"step": 2})


def test_a_full_disk_is_told(tmp_path, disk_of):
    with MetricLog(tmp_path, 0) as log:
        log.write(1, {"loss": 1})
        size = (tmp_path / "metrics.jsonl").stat().st_size
        with disk_of(size + 5), pytest.raises(OutputError, match=r"cannot write .*metrics\.jsonl: File too large"):
            log.write(2, {"loss": 2})
    with MetricLog(tmp_path, 1) as log:
        log.write(2, {"loss": 3})
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 3.0}]


def test_a_full_disk_is_told_of_videos_too(tmp_path, disk_of):
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    with pytest.raises(OutputError, match=r"cannot write .*tensorboard"), disk_of(4096), MetricLog(tmp_path, 0) as log:
        log.video(1, "sample", frames)
    with disk_of(0), pytest.raises(OutputError, match=r"cannot write .*tensorboard"):
        MetricLog(tmp_path / "other", 0)


def test_what_ended_the_run_is_not_hidden_by_a_full_disk(tmp_path, disk_of):
    with pytest.raises(KeyError, match="cause"), contextlib.ExitStack() as disk, MetricLog(tmp_path, 0) as log:
        log._lines.write("left over for the close")
        disk.enter_context(disk_of(0))
        raise KeyError("cause")


@pytest.mark.parametrize(("size", "kept"), [((24, 32), (24, 32)), ((320, 1280), (160, 640))])
def test_video_is_a_gif_that_plays_at_its_rate(size, kept, tmp_path):
    levels = np.array([20, 120, 240], np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (3, *size, 3)).copy()
    with MetricLog(tmp_path, 0) as log:
        log.video(7, "samples/one", frames)
    event = events(tmp_path)[-1]
    (value,) = event.summary.value
    assert (event.step, value.tag, (value.image.height, value.image.width)) == (7, "samples/one", kept)
    with Image.open(io.BytesIO(value.image.encoded_image_string)) as gif:
        assert (gif.format, gif.n_frames, gif.size) == ("GIF", 3, kept[::-1])
        for index, level in enumerate(levels):
            gif.seek(index)
            assert gif.info["duration"] == 40  # milliseconds
            np.testing.assert_allclose(np.asarray(gif.convert("RGB")), level, atol=2)


def test_loss_by_band():
    losses, times = np.array([1.0, 3.0, 5.0, 7.0, 9.0]), np.array([0.0, 0.2499, 0.25, 0.99, 1.0])
    assert loss_by_band(losses, times) == {
        "loss/tau_0.00-0.25": 2,
        "loss/tau_0.25-0.50": 5,
        "loss/tau_0.75-1.00": 8,
    }
    assert loss_by_band(losses, times, bands=1) == {"loss/tau_0.00-1.00": 5}
    assert loss_by_band(losses[:0], times[:0]) == {}
    with pytest.raises(ValueError, match="outside"):
        loss_by_band(losses, times * 1000)
