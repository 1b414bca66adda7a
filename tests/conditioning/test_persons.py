"""Masks against the recording, boxes and mask images by hand, and every refusal."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from itjax.conditioning.persons import draw_masks, person_masks
from itjax.errors import UserError

RECORDINGS = Path(__file__).parents[1] / "recordings"
SOURCE, SIZE = (120, 240), (64, 128)  # one shape: nothing is cut


def test_halves_are_the_recorded_ones():
    width, height = Image.open(RECORDINGS / "runs/media/wide.png").size
    recorded = load_file(RECORDINGS / "runs/image_two_people/recording.safetensors")["person_masks"]
    ours = person_masks((32, 64), (height, width), None, 2)
    assert ours.dtype == np.float32 and 0 < recorded[0].sum() < recorded[0].size
    np.testing.assert_array_equal(ours, recorded)


def test_one_person_has_everything():
    recorded = load_file(RECORDINGS / "runs/image_one_person/recording.safetensors")["person_masks"]
    np.testing.assert_array_equal(person_masks((64, 48), (97, 83), None, 1), recorded)
    np.testing.assert_array_equal(person_masks((64, 48), (97, 83), [[1, 2, 50, 60]], 1), recorded)


@pytest.mark.parametrize("source", [(120, 240), (97, 83), (60, 131), (1080, 1920), (200, 90)])
@pytest.mark.parametrize(
    "boxes", [None, [[0.1, 0.1, 0.6, 0.45], [0.2, 0.5, 0.9, 0.95]], [[0.2, 0.2, 0.8, 0.7], [0.2, 0.4, 0.8, 0.9]]]
)
def test_masks_are_torchs(source, boxes):
    """The official way in torch: fill, nearest to cover, centre crop, nearest to the latent grid."""
    torch = pytest.importorskip("torch")
    (height, width), size = source, (64, 96)
    if boxes is not None:
        boxes = [[b[0] * height, b[1] * width, b[2] * height, b[3] * width] for b in boxes]
    half = width // 2
    official = boxes or [
        [height * 0.05, half * 0.05, height * 0.95, half * 0.95],
        [height * 0.05, half * 0.05 + half, height * 0.95, half * 0.95 + half],
    ]
    masks = torch.zeros(3, height, width)
    for mask, box in zip(masks, official, strict=False):
        mask[int(box[0]) : int(box[2]), int(box[1]) : int(box[3])] = 1
    masks[2] = torch.where(masks[0] + masks[1] > 0, 0.0, 1.0)
    scale = max(size[0] / height, size[1] / width)
    cover = (int(np.ceil(scale * height)), int(np.ceil(scale * width)))
    masks = torch.nn.functional.interpolate(masks[None], size=cover, mode="nearest")
    top, left = round((cover[0] - size[0]) / 2.0), round((cover[1] - size[1]) / 2.0)
    masks = masks[..., top : top + size[0], left : left + size[1]]
    masks = torch.nn.functional.interpolate(masks, size=(8, 12), mode="nearest")[0] > 0
    np.testing.assert_array_equal(person_masks(size, source, boxes, 2), masks.numpy().astype(np.float32))


def test_boxes_are_rows_first():
    one, two, background = person_masks(SIZE, SOURCE, [[0, 0, 60, 240], [60, 120, 120, 240]], 2)
    assert one[:4].all() and not one[4:].any()
    assert two[4:, 8:].all() and two.sum() == 4 * 8
    np.testing.assert_array_equal(background, 1 - np.maximum(one, two))


def test_boxes_may_overlap():
    one, two, background = person_masks(SIZE, SOURCE, [[0, 0, 120, 150], [0, 90, 120, 200]], 2)
    assert (one * two).any()
    np.testing.assert_array_equal(background, 1 - np.maximum(one, two))


@pytest.mark.parametrize("shape", [SOURCE, (60, 120), (240, 480, 3), (31, 77)])
def test_mask_images_of_any_size(shape):
    left, right = np.zeros(shape, np.uint8), np.full(shape, 127, np.uint8)  # 127 is not the person
    left[:, : shape[1] // 4], right[:, 3 * shape[1] // 4 :] = 255, 128
    one, two, background = person_masks(SIZE, SOURCE, None, 2, [left, right])
    assert one[:, :3].all() and not one[:, 5:].any() and two[:, 13:].all() and not two[:, :11].any()
    np.testing.assert_array_equal(background, 1 - one - two)


GOOD = [10, 10, 100, 100]


@pytest.mark.parametrize(
    ("boxes", "persons", "message"),
    [
        ([GOOD], 2, "1 boxes for 2 person"),
        ([GOOD, GOOD], 1, "2 boxes for 1 person"),
        ([GOOD, [10, 10, 100]], 2, r"person 2: \[10, 10, 100\]: four numbers"),
        ([[10, 10, float("nan"), 100], GOOD], 2, "person 1.*four numbers"),
        ([["10", 10, 90, 100], GOOD], 2, "person 1.*four numbers"),
        ([GOOD, [10, 130, 100, 241]], 2, r"person 2: \[10, 130, 100, 241\].*beyond.*120 high and 240 wide"),
        ([[-1, 0, 50, 50], GOOD], 2, "person 1.*beyond"),
        ([GOOD, [100, 150, 90, 200]], 2, "person 2.*empty"),
        ([GOOD, [50, 150, 50.5, 200]], 2, "person 2.*empty"),
        ([GOOD, [50, 150, 51, 151]], 2, "Person 2.*too small.*64x128.*120x240"),
        ([[0, 0, 120, 120], [0, 120, 120, 240]], 2, "no background"),
        (None, 3, "3 persons"),
        ([], 0, "0 persons"),
        ([[0, 0, 10, 10**400]], 1, "it extends beyond the image"),
    ],
)
def test_refusals(boxes, persons, message):
    with pytest.raises(UserError, match=message):
        person_masks(SIZE, SOURCE, boxes, persons)


def test_refused_masks():
    mask = np.zeros(SOURCE, np.uint8)
    mask[20:100, 20:100] = 255
    with pytest.raises(UserError, match="1 mask images for 2 person"):
        person_masks(SIZE, SOURCE, None, 2, [mask])
    with pytest.raises(UserError, match=r"Person 2.*nothing of it remains"):
        person_masks(SIZE, SOURCE, None, 2, [mask, np.zeros_like(mask)])
    with pytest.raises(UserError, match="Provide only one of them"):
        person_masks(SIZE, SOURCE, [GOOD, GOOD], 2, [mask, mask])


def test_a_person_in_the_part_that_is_cut_off():
    with pytest.raises(UserError, match=r"Person 1.*cropped away"):
        person_masks((64, 64), (120, 480), [[10, 0, 110, 90], [10, 200, 110, 280]], 2)


@pytest.mark.parametrize(("left", "seen"), [(0, True), (8, False), (16, True)])
def test_a_person_between_the_tokens_is_refused(left, seen):
    """The network takes the first of 2x2 latent cells: a box that has only others would make all frames NaN."""
    boxes = [[0, left, 64, left + 8], [0, 64, 64, 96]]
    if seen:
        masks = person_masks((64, 128), (64, 128), boxes, 2)
        assert masks[0, ::2, ::2].any()
    else:
        with pytest.raises(UserError, match=r"Person 1.*too small"):
            person_masks((64, 128), (64, 128), boxes, 2)


def test_drawing_shows_who_is_who():
    image = np.full((*SIZE, 3), 128, np.uint8)
    masks = person_masks(SIZE, SOURCE, None, 2)
    drawn = draw_masks(image, masks)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    background = masks[2].repeat(8, axis=0).repeat(8, axis=1) > 0
    np.testing.assert_array_equal(drawn[background], image[background])
    red, blue = drawn[12, 12].astype(int), drawn[12, -12].astype(int)
    assert red[0] > red[2] + 30 and blue[2] > blue[0] + 30
    assert drawn.min(axis=2).max() > 240  # the numbers, white
