"""Sizes and pixels against the recordings, and the kernels against torch."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from itjax.media.picture_sizes import SIZES_480, SIZES_720, choose_size
from itjax.media.resize import cover_size, crop_centre, resize_and_crop, resize_nearest, to_unit

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
