"""The finished and the unfinished video as a player sees them: pictures, colours, sound in time, layout, memory."""

from itertools import pairwise

import av
import numpy as np
import psutil
import pytest

from itjax.errors import UserError
from itjax.media import fragments
from itjax.media.sound_track import SoundTrack
from itjax.media.writer import open_writer

FPS = 25
SIZE = (48, 64)
CHUNKS = (9, 20, 1, 1, 33)  # also too short for x264's reordering, and (one frame at 16 kHz) for a packet of sound


def movie(frames, size=SIZE, first=0):
    """A bright bar that wanders over a gradient of colours: no two neighbours are alike. uint8 [n, H, W, 3]."""
    y, x = np.mgrid[: size[0], : size[1]]
    still = np.stack([x * 200 / size[1], y * 200 / size[0], 100 + 0 * x], -1)
    bars = [np.where(np.abs(x - (2 * k) % size[1]) < 6, 55, 0)[..., None] for k in range(first, first + frames)]
    return (still + np.stack(bars)).astype(np.uint8)


def clicks(rate, channels, seconds, at):
    """Silence with a click of 1/2 ms at each time, the first in the first channel only."""

    def blocks():
        samples = np.zeros((int(seconds * rate), channels), np.float32)
        for index, time in enumerate(at):
            start = round(time * rate)
            samples[start : start + rate // 2000, 0 if index == 0 else slice(None)] = 0.9
        yield from np.split(samples, range(7001, len(samples), 7001))  # of no even size

    return SoundTrack(rate, channels, blocks)


def record(file, chunks=CHUNKS, sound=None, size=SIZE, **options):
    """Append a movie in chunks of these lengths; gives the run, not finished."""
    run = open_writer(file, size, FPS, sound, {"seed": 1}, resume=False, **options)
    for count in chunks:
        run.append(movie(count, size, run.frames_done), None, {"last": np.arange(3.0)})
    return run


@pytest.fixture(params=["unfinished", "finished"])
def either(request):
    """The file of a run: as it is between two chunks, and at the end."""

    def file(run):
        if request.param == "finished":
            run.finish()
        return run.files.video

    return file


def decoded(file, kind):
    with av.open(str(file)) as container:
        return list(container.decode(**{kind: 0}))


def loud(file, channel, rate):
    """Times in seconds at which a click begins, and the length of all sound."""
    frames = decoded(file, "audio")
    samples = np.concatenate([frame.to_ndarray() for frame in frames], 1)[channel]
    assert frames[0].pts * frames[0].time_base == 0  # the decoder has left the priming out
    peaks = np.flatnonzero(np.abs(samples) > 0.4) / rate
    return [t for before, t in pairwise([-1.0, *peaks]) if t - before > 0.1], len(samples) / rate


def test_the_frames_are_seen_in_order_in_time(tmp_path, either):
    file = either(record(tmp_path / "a", sound=clicks(16000, 1, 5, [1.0])))
    frames = decoded(file, "video")
    assert [float(frame.pts * frame.time_base) for frame in frames] == [k / FPS for k in range(sum(CHUNKS))]
    with av.open(str(file)) as container:
        video = container.streams.video[0]
        assert float(video.duration * video.time_base) == pytest.approx(sum(CHUNKS) / FPS)
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
    back = [f.reformat(format="rgb24", src_colorspace="itu709", dst_color_range="JPEG").to_ndarray() for f in frames]
    error = (np.stack(back).astype(float) - movie(sum(CHUNKS))) ** 2
    psnr = 10 * np.log10(255**2 / error.mean((1, 2, 3)))
    assert psnr.min() > 33  # the edges of the bar lose their chroma to 4:2:0; a neighbouring frame gives less than 25


def test_the_colours_are_bt709_in_the_limited_range(tmp_path, either):
    run = open_writer(tmp_path / "a", SIZE, FPS, None, {}, resume=False)
    red, white = np.zeros((1, *SIZE, 3), np.uint8), np.full((1, *SIZE, 3), 255, np.uint8)
    red[..., 0] = 255
    run.append(np.concatenate([red, white]), None, {})
    file = either(run)
    with av.open(str(file)) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range) == (1, 1, 1, 1)
    # Y = 16 + 219·0.2126, Cb = 128 - 224·0.2126/1.8556, Cr = 128 + 224·0.5; then white
    for frame, expected in zip(decoded(file, "video"), ([62.6, 102.3, 240.0], [235.0, 128.0, 128.0]), strict=True):
        planes = frame.to_ndarray()
        y, u, v = np.split(planes.reshape(-1), [48 * 64, 48 * 64 * 5 // 4])
        np.testing.assert_allclose([y.mean(), u.mean(), v.mean()], expected, atol=1.5)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (48000, 2)])
def test_the_sound_is_in_time(tmp_path, either, rate, channels):
    file = either(record(tmp_path / "a", (7, 30, 1, 40), clicks(rate, channels, 4, [1.0, 2.4])))
    first, length = loud(file, 0, rate)
    np.testing.assert_allclose(first, [1.0, 2.4], atol=0.002)
    if channels == 2:
        np.testing.assert_allclose(loud(file, 1, rate)[0], [2.4], atol=0.002)
    assert 78 / FPS <= length < 78 / FPS + 1024 / rate


@pytest.mark.parametrize("seconds", [0.0, 0.7, 9.0])
def test_the_sound_is_as_long_as_the_pictures(tmp_path, either, seconds):
    file = either(record(tmp_path / "a", (50,), clicks(16000, 1, seconds, [])))
    assert 2.0 <= loud(file, 0, 16000)[1] < 2.0 + 1024 / 16000


def test_a_video_may_be_silent(tmp_path, either):
    with av.open(str(either(record(tmp_path / "a")))) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def packets(file):
    with av.open(str(file)) as container:
        return [(p.stream.type, p.pts, p.dts, bytes(p)) for p in container.demux() if p.dts is not None]


def boxes(data, at=0):
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8].decode(), data[at : at + length]
        at += length


def test_finishing_copies_the_packets_and_puts_the_index_in_front(tmp_path):
    run = record(tmp_path / "a", sound=clicks(16000, 1, 5, [1.0]))
    before, layout = packets(run.files.video), list(boxes(run.files.video.read_bytes()))
    assert [name for name, _ in layout] == ["ftyp", "moov"] + ["moof", "mdat"] * len(CHUNKS)
    sequence = [int.from_bytes(box[20:24], "big") for name, box in layout if name == "moof"]
    assert sequence == [1, 2, 3, 4, 5]

    file = run.finish()
    assert sorted(packets(file)) == sorted(before)
    names = [name for name, _ in boxes(file.read_bytes())]
    assert names.index("moov") < names.index("mdat") and "moof" not in names
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_decode_times_rise_over_the_chunks(tmp_path):
    run = record(tmp_path / "a", (1, 5, 1, 1, 9, 2))
    times = [(pts, dts) for _, pts, dts, _ in packets(run.files.video)]
    assert all(dts <= pts for pts, dts in times)
    assert {b - a for (_, a), (_, b) in pairwise(times)} == {12800 // FPS}


def test_one_header_serves_every_chunk():
    fmt = fragments.Format(*SIZE, FPS, None, "")
    noise = np.random.default_rng(0).integers(0, 256, (40, *SIZE, 3), dtype=np.uint8)
    headers = set()
    for frames in (movie(1), movie(81), noise, np.zeros_like(noise)):
        data = fragments.fragment(fmt, fragments.Counts(), frames, [])
        at = data.index(b"avcC")
        headers.add(data[at : at + int.from_bytes(data[at - 4 : at], "big") - 4])
    assert len(headers) == 1


def test_the_array_is_valid_after_each_chunk(tmp_path):
    run = open_writer(tmp_path / "a", SIZE, FPS, None, {}, resume=False, save_frames=tmp_path / "b.npy")
    whole = np.random.default_rng(0).uniform(-1, 1, (23, *SIZE, 3)).astype(np.float32)
    for start, end in pairwise((0, 9, 10, 23)):
        run.append(movie(end - start), whole[start:end], {})
        np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), whole[:end])
        assert np.load(tmp_path / "b.npy", mmap_mode="r").dtype == np.float32
        assert (tmp_path / "b.npy").stat().st_size == 128 + whole[:end].nbytes
    run.finish()
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), whole)


def test_memory_does_not_grow_with_the_number_of_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)  # most of the time of small chunks, and nothing to do with memory
    sound = SoundTrack(16000, 1, lambda: (np.full((1600, 1), 0.1, np.float32) for _ in range(10_000)))
    run = open_writer(tmp_path / "a", SIZE, FPS, sound, {}, resume=False, save_frames=tmp_path / "a.npy")
    held = []
    for _ in range(300):
        frames = movie(4, first=run.frames_done)
        run.append(frames, frames / np.float32(127.5) - 1, {"last": frames[-1]})
        held.append(psutil.Process().memory_info().rss)
    whole = (tmp_path / "a.npy").stat().st_size
    assert whole > 40e6  # what keeping the float frames would cost
    assert held[-1] - held[100] < 8e6  # the first chunks fill the allocator's pools


@pytest.mark.parametrize("size", [(47, 64), (48, 63), (0, 64)])
def test_odd_sizes_are_refused(tmp_path, size):
    with pytest.raises(UserError, match=f"{size[0]} x {size[1]}.*even"):
        open_writer(tmp_path / "a", size, FPS, None, {}, resume=False)


@pytest.mark.parametrize(("rate", "channels", "word"), [(44000, 1, "44000 samples"), (44100, 6, "6 channels")])
def test_sound_that_aac_does_not_hold_is_refused(tmp_path, rate, channels, word):
    with pytest.raises(UserError, match=word):
        open_writer(tmp_path / "a", SIZE, FPS, clicks(rate, channels, 1, []), {}, resume=False)


def test_frames_of_another_shape_are_a_defect_of_the_caller(tmp_path):
    run = record(tmp_path / "a", (3,))
    with pytest.raises(ValueError, match=r"\(2, 32, 32, 3\), not uint8 \(2, 48, 64, 3\)"):
        run.append(movie(2, (32, 32)), None, {})
    with pytest.raises(ValueError, match="saves to None"):
        run.append(movie(2), np.zeros((2, *SIZE, 3), np.float32), {})
    with pytest.raises(TypeError, match="object"):
        run.append(movie(2), None, {"carry": np.array([None])})
    assert (run.next_chunk, len(decoded(run.files.video, "video"))) == (1, 3)
