"""Sizes and pixels against the recordings, and the kernels against torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from itjax.media import resize
from itjax.media.picture_sizes import SIZES_480, SIZES_720, choose_size
from itjax.media.resize import cover_nearest, cover_size, crop_centre, resize_and_crop, resize_nearest, to_unit

RECORDINGS = Path(__file__).parents[1] / "recordings"


@pytest.mark.parametrize(("name", "table"), [("infinitetalk-480", SIZES_480), ("infinitetalk-720", SIZES_720)])
def test_choice_is_the_official_one(name, table):
    choices = json.loads((RECORDINGS / "modules/buckets.json").read_text())[name]
    assert len(choices) > 5
    for height, width, *chosen in choices:
        assert list(choose_size(height, width, table)) == chosen


@pytest.mark.parametrize(("table", "pixels"), [(SIZES_480, 640 * 640), (SIZES_720, 960 * 960)])
def test_tables_have_no_slip(table, pixels):
    assert list(table) == sorted(table)
    for ratio, (height, width) in table.items():
        assert height % 64 == width % 64 == 0 and 0.85 < height * width / pixels < 1.1
        assert abs(height / width - ratio) < 0.1


def test_of_two_equally_near_the_first():
    assert choose_size(3, 4, {0.5: (1, 2), 1.0: (2, 2)}) == (1, 2)


@pytest.mark.parametrize(("name", "size"), [("face", (48, 48)), ("face", (64, 48)), ("wide", (32, 64))])
def test_resize_is_the_official_one_to_the_bit(name, size):
    image = np.array(Image.open(RECORDINGS / f"media/{name}.png"))
    recorded = load_file(RECORDINGS / "modules/resize.safetensors")[f"{name}_{size[0]}x{size[1]}"]
    ours = resize_and_crop(image, size)
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, recorded.transpose(1, 2, 0))


@pytest.mark.parametrize("source", [(97, 83), (60, 131), (1, 1), (1080, 1920), (33, 2000)])
@pytest.mark.parametrize("size", [(48, 64), (640, 640), (320, 1216)])
def test_cover_covers(source, size):
    cover = cover_size(source, size)
    assert cover[0] >= size[0] and cover[1] >= size[1] and min(cover[0] - size[0], cover[1] - size[1]) <= 1
    assert crop_centre(np.zeros((*cover, 3), np.uint8), size).shape == (*size, 3)


@pytest.mark.parametrize("shape", [(97, 83), (60, 131), (3, 500), (500, 3), (1, 4000), (4000, 1), (64, 48)])
@pytest.mark.parametrize("size", [(48, 64), (64, 48)])
def test_cropped_before_it_is_scaled_it_looks_the_same(shape, size, monkeypatch):
    """To one step of 255: positions are rounded otherwise. Masks are equal."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    whole = resize_and_crop(image, size)
    monkeypatch.setattr(resize, "WHOLE", 0)
    cropped = resize_and_crop(image, size)
    assert np.abs(cropped.astype(int) - whole).max() <= 1 and (cropped != whole).mean() < 0.05
    nearest = crop_centre(resize_nearest(image, cover_size(shape, size)), size)
    np.testing.assert_array_equal(cover_nearest(image, size), nearest)


LINES = """
import resource, sys
import numpy as np
from itjax.media.resize import cover_nearest, resize_and_crop

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for shape in ((1, 65535), (65535, 1), (2, 4_000_000)):
    ramp = np.resize(np.linspace(0, 255, max(shape)), shape).astype(np.uint8)
    for size in ((480, 832), (1280, 512)):
        scaled = resize_and_crop(np.repeat(ramp[..., None], 3, -1), size)
        assert scaled.shape == (*size, 3) and abs(int(scaled.mean()) - 127) < 2, scaled.mean()
        assert abs(int(cover_nearest(ramp, size).mean()) - 127) < 2
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_line_of_pixels_takes_no_memory_to_speak_of():
    """Scaled whole, the first would take 45 GB."""
    kilobytes = int(subprocess.check_output([sys.executable, "-c", LINES], text=True))
    assert kilobytes < 200_000


def test_half_a_pixel_goes_to_the_even_side():
    row = np.arange(9)[None]
    assert crop_centre(row, (1, 8))[0, 0] == 0  # 0.5 -> 0
    assert crop_centre(row, (1, 6))[0, 0] == 2  # 1.5 -> 2


def test_unit_is_torchs_to_the_bit():
    torch = pytest.importorskip("torch")
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    theirs = ((torch.from_numpy(image) / 255 - 0.5) * 2).numpy()
    np.testing.assert_array_equal(to_unit(image), theirs)
    assert to_unit(image).min() == -1 and to_unit(image).max() == 1


@pytest.mark.parametrize(
    ("source", "size"), [((60, 131), (32, 70)), ((29, 17), (33, 34)), ((1080, 1921), (97, 83)), ((5, 5), (5, 5))]
)
def test_nearest_is_torchs(source, size):
    torch = pytest.importorskip("torch")
    image = np.arange(source[0] * source[1], dtype=np.float64).reshape(source)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(image)[None, None], size=size, mode="nearest")[0, 0]
    np.testing.assert_array_equal(resize_nearest(image, size), theirs.numpy())
