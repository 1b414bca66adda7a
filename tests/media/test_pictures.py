"""Pictures of all kinds, and videos of all codecs and rates: frame i from anywhere is that of decoding in order."""

import struct
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from itjax.errors import UserError
from itjax.media import images, pictures
from itjax.media.images import load_image
from itjax.media.limits import Limits
from itjax.media.pictures import ImageSource, VideoSource, open_source

MEDIA = Path(__file__).parents[1] / "recordings/runs/media"
HEIGHT, WIDTH = 48, 64
QUICK = {
    "libx264": {"preset": "ultrafast", "bf": "3", "g": "25"},
    "libx265": {"preset": "ultrafast", "x265-params": "bframes=3:keyint=25:log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "g": "25"},
    "libsvtav1": {"preset": "12", "g": "25", "svtav1-params": "lp=1"},
}


def drawn(k: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Picture number k, unlike its neighbours."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 3, y * 4, x + y + 7 * k], axis=-1) % 256
    image[8:28, (3 * k) % 40 : (3 * k) % 40 + 16] = np.random.default_rng(k).integers(0, 255, 3)
    return image.astype(np.uint8)


def write(
    path: Path, codec: str = "libx264", times=25, rate=25, options=None, matrix=None, pix_fmt="yuv420p", pixel_ratio=None
) -> Path:
    """A video of pictures 0, 1, ... at `times` (seconds, or a number of frames at `rate`)."""
    times = [Fraction(k) / rate for k in range(times)] if isinstance(times, int) else times
    tick = 1 / Fraction(rate) if path.suffix == ".avi" else Fraction(1, 90000)
    faststart = {"movflags": "faststart"} if path.suffix == ".mp4" else {}  # a cut file keeps its header
    with av.open(str(path), "w", options=faststart) as container:
        stream = container.add_stream(codec, rate=rate, options={**QUICK.get(codec, {}), **(options or {})})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        stream.codec_context.time_base = tick
        if pixel_ratio:
            stream.codec_context.sample_aspect_ratio = stream.sample_aspect_ratio = pixel_ratio
        if matrix:
            stream.set_display_matrix(matrix)
        for k, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(drawn(k), format="rgb24")
            frame.pts, frame.time_base = round(time / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def in_order(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def by_time(path: Path, count: int) -> list[int]:
    """For each i the number of the last frame at or before i/25 s, from the times alone."""
    with av.open(str(path)) as container:
        tick = container.streams.video[0].time_base
        times = [frame.pts * tick for frame in container.decode(video=0)]
    due = [Fraction(i, 25) + tick / 2 + times[0] for i in range(count)]
    return [max(k for k, time in enumerate(times) if time <= t) for t in due]


def same_from_anywhere(path: Path, expected: list[np.ndarray]) -> None:
    """Frame i is expected[i], upwards, in a jumble, and as the first thing asked for."""
    upwards, jumble, count = open_source(path), open_source(path), len(expected)
    for i in range(count):
        np.testing.assert_array_equal(upwards.frame(i), expected[i], err_msg=f"{path.name}, frame {i}, upwards")
    for i in np.random.default_rng(0).permutation(count).tolist():
        np.testing.assert_array_equal(jumble.frame(i), expected[i], err_msg=f"{path.name}, frame {i}, jumbled")
    for i in range(3, count, 13):
        np.testing.assert_array_equal(open_source(path).frame(i), expected[i], err_msg=f"{path.name}, frame {i}, at once")


@pytest.fixture(params=[10, 0.2], ids=["decode on", "seek"])
def both_ways(request, monkeypatch):
    monkeypatch.setattr(pictures, "FORWARD", request.param)


# --- videos -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("libx264", "mp4", {}),
        ("libx264", "mp4", {"g": "1000"}),
        ("libx264", "mkv", {"x264-params": "open-gop=1:scenecut=0:b-pyramid=normal"}),
        ("libx264", "mkv", {"bf": "0", "x264-params": "intra-refresh=1"}),
        ("libx264", "mov", {}),
        ("libx264", "ts", {}),
        ("libx264", "flv", {}),
        ("libx264", "avi", {}),
        ("libx264", "h264", {}),
        ("mpeg4", "avi", {"g": "25"}),
        ("libx265", "mp4", {}),
        ("libx265", "mkv", {"x265-params": "bframes=4:keyint=30:open-gop=1:log-level=none"}),
        ("libvpx-vp9", "webm", {}),
        ("libvpx-vp9", "mp4", {"g": "1000"}),
        ("libsvtav1", "mp4", {}),
        ("libsvtav1", "mkv", {}),
    ],
)
def test_at_25_a_second_frame_i_is_the_ith(tmp_path, codec, suffix, options):
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV without {codec}")
    path = write(tmp_path / f"clip.{suffix}", codec, 80, options=options)
    expected = in_order(path)
    assert len(expected) == 80
    same_from_anywhere(path, expected + [expected[-1]] * 30)  # past the end the last one stays


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("rate", [24, 25, Fraction(30000, 1001), 30, 50, 60, 10], ids=str)
def test_other_rates(tmp_path, suffix, rate):
    path = write(tmp_path / f"clip.{suffix}", "libx264", int(2 * rate), rate=rate)
    frames = in_order(path)
    numbers = by_time(path, 70)
    assert abs(numbers[40] - 40 * rate / 25) <= 1  # the times themselves are right
    same_from_anywhere(path, [frames[n] for n in numbers])
    assert abs(open_source(path).num_frames - 50) <= 1


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "mp4"), ("libx264", "ts"), ("libvpx-vp9", "webm")])
def test_variable_rate(tmp_path, codec, suffix):
    steps = np.random.default_rng(1).integers(8, 300, 40)
    times = [Fraction(int(t), 1000) for t in np.cumsum(steps) - steps[0]]
    path = write(tmp_path / f"clip.{suffix}", codec, times)
    frames = in_order(path)
    numbers = by_time(path, int(times[-1] * 25) + 20)
    assert len(set(numbers)) < len(numbers) and len(frames) == 40
    same_from_anywhere(path, [frames[n] for n in numbers])


def test_start_after_the_sound_is_kept_a_small_delay_is_not(tmp_path):
    """Time 0 is the file's: a video that starts 0.4 s after its sound shows its first frame until then."""
    for late, shown in ((Fraction(2, 5), [0] * 11 + list(range(1, 10))), (Fraction(1, 50), list(range(10)))):
        path = tmp_path / "late.mkv"
        with av.open(str(path), "w") as container:
            sound = container.add_stream("pcm_s16le", rate=16000, layout="mono")
            video = container.add_stream("libx264", rate=25, options={"bf": "0", "preset": "ultrafast"})
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            video.codec_context.time_base = Fraction(1, 1000)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), "s16", "mono")
            silence.sample_rate, silence.pts = 16000, 0
            container.mux(sound.encode(silence))
            for k in range(10):
                frame = av.VideoFrame.from_ndarray(drawn(k), format="rgb24")
                frame.pts, frame.time_base = int((late + Fraction(k, 25)) * 1000), Fraction(1, 1000)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        frames, source = in_order(path), open_source(path)
        for i, k in enumerate(shown):
            np.testing.assert_array_equal(source.frame(i), frames[k], err_msg=f"{late} s late, frame {i}")


def test_recorded_clip():
    source, frames = open_source(MEDIA / "clip.mp4"), in_order(MEDIA / "clip.mp4")
    assert not source.is_still and source.size == frames[0].shape[:2]
    assert source.num_frames == len(frames)
    np.testing.assert_array_equal(source.frame(len(frames) - 1), frames[-1])


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv444p"])
def test_other_pixel_formats(tmp_path, pix_fmt):
    path = write(tmp_path / "deep.mp4", "libx265", 3, options={"x265-params": "log-level=none"}, pix_fmt=pix_fmt)
    frame = open_source(path).frame(1)
    assert frame.dtype == np.uint8 and np.abs(frame.astype(int) - drawn(1)).mean() < 20


@pytest.mark.parametrize(("transfer", "told"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG"), ("bt709", None)])
def test_hdr_is_told_once(tmp_path, transfer, told, monkeypatch, recwarn):
    monkeypatch.setattr(pictures, "FORWARD", 0.2)
    params = f"log-level=none:keyint=10:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    path = write(tmp_path / "phone.mp4", "libx265", 40, options={"x265-params": params}, pix_fmt="yuv420p10le")
    source = open_source(path)
    for i in (0, 30, 2):
        source.frame(i)
    messages = [str(warning.message) for warning in recwarn]
    if told is None:
        assert not messages
    else:
        (message,) = messages
        assert message.startswith(f"{path}: the video is HDR ({told})") and "ffmpeg -i IN -vf zscale=" in message


ONE = 1 << 16
MATRICES = {  # a, b, c, d of x' = a·x + c·y, y' = b·x + d·y -> what the viewer sees
    "quarter right": ((0, ONE, -ONE, 0), lambda im: np.rot90(im, -1)),
    "half": ((-ONE, 0, 0, -ONE), lambda im: np.rot90(im, 2)),
    "quarter left": ((0, -ONE, ONE, 0), lambda im: np.rot90(im, 1)),
    "mirrored": ((-ONE, 0, 0, ONE), lambda im: im[:, ::-1]),
    "mirrored and turned": ((0, ONE, ONE, 0), lambda im: im.transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_display_matrix_is_followed(tmp_path, name):
    if not hasattr(av.VideoStream, "set_display_matrix"):
        pytest.skip("this PyAV cannot write display matrices")
    (a, b, c, d), turn = MATRICES[name]
    path = write(tmp_path / "phone.mp4", times=10, matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30))
    source = open_source(path)
    expected = [turn(frame) for frame in in_order(path)]
    assert source.size == expected[0].shape[:2]
    for i in (0, 7, 2):
        np.testing.assert_array_equal(source.frame(i), expected[i])
    with av.open(str(path)) as container:  # FFmpeg's own reading of the angle, counter-clockwise
        angle = next(container.decode(video=0)).rotation
    if "mirrored" not in name:
        np.testing.assert_array_equal(expected[0], np.rot90(in_order(path)[0], angle // 90))


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "mp4"), ("libx264", "mkv"), ("mpeg4", "avi"), ("libx264", "ts")])
@pytest.mark.parametrize("ratio", [Fraction(16, 11), Fraction(8, 9)], ids=str)
def test_pixels_that_are_not_square_are_made_square(tmp_path, codec, suffix, ratio):
    path = write(tmp_path / f"disc.{suffix}", codec, times=10, pixel_ratio=ratio)
    source, width = open_source(path), round(WIDTH * ratio)
    assert source.size == (HEIGHT, width)
    for i in (0, 7, 2):
        expected = Image.fromarray(in_order(path)[i]).resize((width, HEIGHT), Image.Resampling.BILINEAR)
        difference = np.abs(source.frame(i).astype(int) - np.asarray(expected)).mean()
        assert source.frame(i).shape == (HEIGHT, width, 3) and difference < 4


def test_the_width_that_is_scaled_is_the_stored_one(tmp_path):
    """Of a turned video, it is the height."""
    if not hasattr(av.VideoStream, "set_display_matrix"):
        pytest.skip("this PyAV cannot write display matrices")
    (a, b, c, d), _ = MATRICES["quarter right"]
    path = write(tmp_path / "phone.mp4", times=3, matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30), pixel_ratio=Fraction(4, 3))
    source = open_source(path)
    assert source.size == source.frame(1).shape[:2] == (round(WIDTH * 4 / 3), HEIGHT)


@pytest.mark.parametrize("ratio", [None, Fraction(1), Fraction(1280, 1281)], ids=str)
def test_square_pixels_are_not_scaled(tmp_path, ratio):
    path = write(tmp_path / "clip.mp4", times=3, pixel_ratio=ratio)
    np.testing.assert_array_equal(open_source(path).frame(2), in_order(path)[2])


@pytest.mark.parametrize("ratio", [60, Fraction(1, 200)], ids=str)
def test_absurd_pixels_are_within_the_limits(tmp_path, ratio):
    path = write(tmp_path / "clip.mp4", times=3, pixel_ratio=Fraction(1, 2))
    data, stored = path.read_bytes(), struct.pack(">4sII", b"pasp", 1, 2)
    path.write_bytes(data.replace(stored, struct.pack(">4sII", b"pasp", *Fraction(ratio).as_integer_ratio())))
    if ratio < 1:
        assert open_source(path).size == (HEIGHT, 1)
    else:
        with pytest.raises(UserError, match=r"clip\.mp4: its size is given as 3840x48: that is more than"):
            open_source(path, Limits(pixels=10**5))


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "mp4"), ("libx264", "mkv"), ("libvpx-vp9", "webm")])
def test_a_missing_end_holds_the_last_good_frame(tmp_path, codec, suffix):
    path = write(tmp_path / f"clip.{suffix}", codec, 100, options={"bf": "0"})  # else one before the last may be missing
    frames, whole = in_order(path), path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.warns(UserWarning, match=rf"clip\.{suffix}: .*last good"):
        source = open_source(path)
        last = source.frame(99)
    (end,) = (k for k, frame in enumerate(frames) if np.array_equal(frame, last))
    assert 30 < end < 80
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same_from_anywhere(path, frames[: end + 1] + [last] * 30)


def test_damage_in_the_middle_is_passed_with_one_warning(tmp_path):
    path = write(tmp_path / "clip.mp4", times=100)
    frames, data = in_order(path), bytearray(path.read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 600] = b"\xff" * 600
    path.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match=r"clip\.mp4: damaged frames") as caught:
        source = open_source(path)
        got = [source.frame(i) for i in range(100)]
    assert len(caught) == 1
    good = [i for i in range(100) if np.array_equal(got[i], frames[i])]
    assert len(good) > 60 and {0, 1, 2, 97, 98, 99} <= set(good)


def test_refusals(tmp_path):
    video = write(tmp_path / "clip.mp4", times=10).read_bytes()
    (tmp_path / "headless.mp4").write_bytes(video[len(video) // 2 :])
    (tmp_path / "hollow.mp4").write_bytes(video[: video.index(b"mdat") + 40])
    (tmp_path / "words.png").write_text("no picture\n" * 50)
    (tmp_path / "empty.jpg").write_bytes(b"")
    picture = (MEDIA / "face.png").read_bytes()
    (tmp_path / "half.png").write_bytes(picture[: len(picture) // 2])
    Image.open(MEDIA / "face.png").resize((400, 400)).save(tmp_path / "half.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "half.jpg").read_bytes()[:3000])
    for name, reason in {
        "missing.png": "no such file",
        "": "folder",
        "empty.jpg": "empty",
        "words.png": "cannot be read as an image or a video",
        "headless.mp4": "damaged, cut off",
        "hollow.mp4": "nothing in it can be decoded",
        "half.png": "damaged or cut off",
        "half.jpg": "damaged or cut off",
    }.items():
        with pytest.raises(UserError, match=f"^{tmp_path / name}: .*{reason}"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            open_source(tmp_path / name)
    with pytest.raises(UserError, match=r"a_short\.wav: the file contains no images"):
        open_source(MEDIA / "a_short.wav")
    with av.open(str(tmp_path / "song.mp3"), "w") as container:  # with a cover
        song, cover = container.add_stream("libmp3lame", rate=44100, layout="mono"), container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = WIDTH, HEIGHT, "rgb24", Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(drawn(0), format="rgb24")))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), "fltp", "mono")
        silence.sample_rate = 44100
        container.mux(song.encode(silence))
        container.mux(song.encode(None))
    with pytest.raises(UserError, match=r"song\.mp3: the file contains no images"):
        open_source(tmp_path / "song.mp3")
    with pytest.raises(UserError, match=r"words\.png: not a readable image"):
        load_image(tmp_path / "words.png")


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_a_picture_is_the_same_at_all_times():
    source = open_source(MEDIA / "face.png")
    assert isinstance(source, ImageSource) and source.is_still and source.size == (97, 83) and source.num_frames is None
    plain = np.array(Image.open(MEDIA / "face.png").convert("RGB"))
    for i in (0, 1, 5000):
        np.testing.assert_array_equal(source.frame(i), plain)


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        ("png", "RGBA"),
        ("png", "L"),
        ("png", "P"),
        ("png", "LA"),
        ("jpg", "CMYK"),
        ("webp", "RGBA"),
        ("bmp", "RGB"),
        ("tiff", "RGB"),
        ("gif", "P"),
    ],
)
def test_modes_become_rgb_as_pil_has_it(tmp_path, suffix, mode):
    path = tmp_path / f"picture.{suffix}"
    image = Image.fromarray(drawn(0)).convert(mode)
    if mode == "RGBA":
        image.putalpha(100)
    image.save(path)
    expected = np.array(Image.open(path).convert("RGB"))
    assert expected.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(load_image(path), expected)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda im: im),
        (3, lambda im: np.rot90(im, 2)),
        (6, lambda im: np.rot90(im, -1)),
        (2, lambda im: im[:, ::-1]),
    ],
)
def test_exif_orientation_is_followed(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(drawn(0)).save(tmp_path / "phone.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "phone.png"), turn(drawn(0)))


def test_damaged_exif_is_no_obstacle(tmp_path):
    Image.fromarray(drawn(0)).save(tmp_path / "odd.png", exif=b"Exif\x00\x00neither II nor MM")
    np.testing.assert_array_equal(load_image(tmp_path / "odd.png"), drawn(0))


def test_very_large_pictures_are_welcome(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setattr(images, "BAND", 500)  # some versions of PIL compare parts of an image with the limit as well
    Image.fromarray(drawn(0)).save(tmp_path / "large.png")
    assert open_source(tmp_path / "large.png").size == (HEIGHT, WIDTH)
    assert Image.MAX_IMAGE_PIXELS == 1000 and not recwarn.list


def test_content_decides_not_the_name(tmp_path):
    (tmp_path / "picture.mp4").write_bytes((MEDIA / "face.png").read_bytes())
    (tmp_path / "video.png").write_bytes((MEDIA / "clip.mp4").read_bytes())
    assert isinstance(open_source(tmp_path / "picture.mp4"), ImageSource)
    assert isinstance(open_source(tmp_path / "video.png"), VideoSource)
