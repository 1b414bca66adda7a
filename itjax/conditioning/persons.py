"""Masks of each person and of the background, on the latent grid."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from itjax.errors import UserError
from itjax.media.picture_sizes import Size
from itjax.media.resize import cover_nearest, resize_nearest

MARGIN = 0.05  # fraction of a person's part of the image left free on each side if no boxes are given
LATENT_STRIDE = 8  # pixels per latent cell
TOKEN_STRIDE = 2  # latent cells per token of the DiT, which takes the value of the first one
TINTS = ((230, 60, 60), (60, 110, 240))

Box = Sequence[Any]  # top, left, bottom, right in source pixels (like the official bbox: rows first), not validated
MaskImage = UInt8[np.ndarray, "H W"] | UInt8[np.ndarray, "H W 3"]


def person_masks(
    size: Size,
    source_size: Size,
    boxes: Sequence[Box] | None,
    num_persons: int,
    masks: Sequence[MaskImage] | None = None,
) -> Float32[np.ndarray, "G h w"]:
    """Masks of person 1, person 2 and the background: 0 or 1 on the latent grid (h, w) = size/8.

    Without boxes or masks, the persons are the left and the right half of the image, shrunk by 5 %. Everything is
    transformed like the image: scaled to cover `size`, then centre-cropped. For one person, all three masks are ones, as
    in the official code.

    Args:
        size: the video's (height, width) in pixels.
        source_size: the source image's (height, width) in pixels.
        boxes: one per person, in pixels of the source image.
        num_persons: one or two.
        masks: one per person, of any size, covering the source image; brighter than 127 where the person is.

    Raises:
        UserError: if the counts differ, a box is empty or outside the image, no token has a person, or nothing of the
            background remains on the grid.
    """
    if not 1 <= num_persons <= 2:
        raise UserError(f"{num_persons} persons: a video can have one or two speakers.")
    persons = _on_source(source_size, boxes, num_persons, masks)
    grid = (size[0] // LATENT_STRIDE, size[1] // LATENT_STRIDE)
    if num_persons == 1:
        return np.ones((3, *grid), np.float32)
    all_masks = [*persons, ~np.logical_or.reduce(persons)]
    cells = np.stack([resize_nearest(cover_nearest(m, size), grid) for m in all_masks])
    _check_cells(cells, source_size, size)
    return cells.astype(np.float32)


def draw_masks(image: UInt8[np.ndarray, "H W 3"], masks: Float32[np.ndarray, "G h w"]) -> UInt8[np.ndarray, "H W 3"]:
    """Tints (1 red, 2 blue) and numbers the persons in the video's first frame, to check them before a run."""
    tinted = image.astype(np.float32)
    areas = [resize_nearest(mask > 0, image.shape[:2]) for mask in masks[:-1]]  # the last mask is the background
    for area, colour in zip(areas, TINTS, strict=False):
        tinted = np.where(area[..., None], 0.6 * tinted + 0.4 * np.asarray(colour, np.float32), tinted)
    picture = Image.fromarray(tinted.astype(np.uint8))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=max(12, image.shape[0] // 8))
    for number, area in enumerate(areas, 1):
        if area.any():
            y, x = (float(coordinates.mean()) for coordinates in np.nonzero(area))
            draw.text((x, y), str(number), fill="white", stroke_fill="black", stroke_width=1, font=font, anchor="mm")
    return np.array(picture)


def _on_source(
    source_size: Size, boxes: Sequence[Box] | None, num_persons: int, masks: Sequence[MaskImage] | None
) -> list[np.ndarray]:
    """One boolean mask [H, W] per person, on the source image."""
    if boxes is not None and masks is not None:
        raise UserError("Both boxes and mask images are given. Provide only one of them.")
    for what, given in (("boxes", boxes), ("mask images", masks)):
        if given is not None and len(given) != num_persons:
            raise UserError(f"{len(given)} {what} for {num_persons} person(s). Provide one for each person.")
    if masks is not None:
        bright = [(m if m.ndim == 2 else m.mean(axis=2)) > 127 for m in masks]
        return [resize_nearest(m, source_size) for m in bright]
    if boxes is not None:
        return [_filled(source_size, _validated(box, person, source_size)) for person, box in enumerate(boxes, 1)]
    return [_filled(source_size, _column(source_size, person, num_persons)) for person in range(num_persons)]


def _column(source_size: Size, person: int, num_persons: int) -> tuple[int, int, int, int]:
    """The box of the person's part of the image, counted from the left, without the margin."""
    height, width = source_size[0], source_size[1] // num_persons
    left = person * width
    return int(height * MARGIN), int(width * MARGIN + left), int(height * (1 - MARGIN)), int(width * (1 - MARGIN) + left)


def _filled(source_size: Size, box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros(source_size, bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    return mask


def _validated(box: Box, person: int, source_size: Size) -> tuple[int, int, int, int]:
    """The box in whole pixels. Raises UserError for bad numbers: correcting them silently could select the wrong speaker."""
    height, width = source_size
    given = f"bbox of person {person}: {box}"
    order = "[top, left, bottom, right] in pixels of the image (rows first)"
    if len(box) != 4 or not all(isinstance(n, int | float) and abs(n) < math.inf for n in box):
        raise UserError(f"{given}: four numbers are needed: {order}.")
    top, left, bottom, right = (int(n) for n in box)
    expected = f"the image is {height} high and {width} wide; a box is {order}"
    if min(box) < 0 or max(top, bottom) > height or max(left, right) > width:
        raise UserError(f"{given}: it extends beyond the image: {expected}.")
    if top >= bottom or left >= right:
        raise UserError(f"{given}: the box is empty: {expected}.")
    return top, left, bottom, right


def _check_cells(cells: np.ndarray, source_size: Size, size: Size) -> None:
    """Checks that each person has a token: the network averages over a person's tokens, which would divide by zero."""
    crop = f"at {size[0]}x{size[1]} (height x width), cropped from an image of {source_size[0]}x{source_size[1]}"
    for person, mask in enumerate(cells[:-1], 1):
        if not mask[::TOKEN_STRIDE, ::TOKEN_STRIDE].any():
            raise UserError(
                f"Person {person}: the box or mask is too small, or lies in the part that is cropped away: nothing of it "
                f"remains {crop}. Make it larger or move it towards the centre."
            )
    if not cells[-1].any():
        raise UserError(f"The boxes or masks leave no background {crop}. Make them smaller.")
