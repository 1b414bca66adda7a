"""Who is where: a mask for each person and one for the background, on the latent grid."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from itjax.errors import UserError
from itjax.media.picture_sizes import Size
from itjax.media.resize import covering, crop_centre, resize_nearest

MARGIN = 0.05  # of a person's share of the picture, left free on each side where no boxes are given
STRIDE = 8  # pixels a latent cell
COLOURS = ((230, 60, 60), (60, 110, 240))

Box = Sequence[Any]  # top, left, bottom, right in pixels of the source (the official bbox: rows first), unchecked
MaskImage = UInt8[np.ndarray, "H W"] | UInt8[np.ndarray, "H W 3"]


def person_masks(
    size: Size,
    source_size: Size,
    boxes: Sequence[Box] | None,
    num_persons: int,
    masks: Sequence[MaskImage] | None = None,
) -> Float32[np.ndarray, "G h w"]:
    """Person 1, person 2, background: 0 or 1 on the latent grid (h, w) = size/8.

    `size` is the video's (height, width), `source_size` the picture's, which `boxes` and `masks` (one a person, of any
    size, brighter than 127 where the person is) speak of. Without either, the halves of the picture, shrunk by 5 %.
    They go the way the picture goes: scaled to cover, cut around the centre. One person: three times all ones, as in
    the official code.

    Raises:
        UserError: where the counts differ, a box lies outside or is empty, or nothing of a person or of the background is
            left on the grid.
    """
    if not 1 <= num_persons <= 2:
        raise UserError(f"{num_persons} persons: one or two can speak in one video.")
    persons = _on_source(source_size, boxes, num_persons, masks)
    grid = (size[0] // STRIDE, size[1] // STRIDE)
    if num_persons == 1:
        return np.ones((3, *grid), np.float32)
    all_masks = [*persons, ~np.logical_or.reduce(persons)]
    cover = covering(source_size, size)
    cells = np.stack([resize_nearest(crop_centre(resize_nearest(m, cover), size), grid) for m in all_masks])
    _check_cells(cells, source_size, size)
    return cells.astype(np.float32)


def draw_masks(image: UInt8[np.ndarray, "H W 3"], masks: Float32[np.ndarray, "G h w"]) -> UInt8[np.ndarray, "H W 3"]:
    """The video's first picture with the persons tinted (1 red, 2 blue) and numbered: who is who, before a run."""
    tinted = image.astype(np.float32)
    areas = [resize_nearest(mask > 0, image.shape[:2]) for mask in masks[:-1]]  # the last is the background
    for area, colour in zip(areas, COLOURS, strict=False):
        tinted = np.where(area[..., None], 0.6 * tinted + 0.4 * np.asarray(colour, np.float32), tinted)
    picture = Image.fromarray(tinted.astype(np.uint8))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=max(12, image.shape[0] // 8))
    for number, area in enumerate(areas, 1):
        if area.any():
            y, x = (float(place.mean()) for place in np.nonzero(area))
            draw.text((x, y), str(number), fill="white", stroke_fill="black", stroke_width=1, font=font, anchor="mm")
    return np.array(picture)


def _on_source(
    source_size: Size, boxes: Sequence[Box] | None, num_persons: int, masks: Sequence[MaskImage] | None
) -> list[np.ndarray]:
    """A boolean [H, W] a person, on the source picture."""
    if boxes is not None and masks is not None:
        raise UserError("Both boxes and mask images are given. Give one of them.")
    for what, given in (("boxes", boxes), ("mask images", masks)):
        if given is not None and len(given) != num_persons:
            raise UserError(f"{len(given)} {what} for {num_persons} person(s). Give one for each person.")
    if masks is not None:
        bright = [(m if m.ndim == 2 else m.mean(axis=2)) > 127 for m in masks]
        return [resize_nearest(m, source_size) for m in bright]
    if boxes is not None:
        return [_filled(source_size, _checked(box, person, source_size)) for person, box in enumerate(boxes, 1)]
    return [_filled(source_size, _column(source_size, person, num_persons)) for person in range(num_persons)]


def _column(source_size: Size, person: int, num_persons: int) -> tuple[int, int, int, int]:
    """The person's share of the picture, from left to right, less a margin."""
    height, width = source_size[0], source_size[1] // num_persons
    left = person * width
    return int(height * MARGIN), int(width * MARGIN + left), int(height * (1 - MARGIN)), int(width * (1 - MARGIN) + left)


def _filled(source_size: Size, box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros(source_size, bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    return mask


def _checked(box: Box, person: int, source_size: Size) -> tuple[int, int, int, int]:
    """The box in whole pixels, or UserError. Numbers corrected in silence are how the wrong one comes to speak."""
    height, width = source_size
    said = f"bbox of person {person}: {box}"
    order = "[top, left, bottom, right] in pixels of the picture (rows first)"
    if len(box) != 4 or not all(isinstance(n, int | float) and math.isfinite(n) for n in box):
        raise UserError(f"{said}: four numbers are needed: {order}.")
    top, left, bottom, right = (int(n) for n in box)
    picture = f"the picture is {height} high and {width} wide; a box is {order}"
    if min(box) < 0 or max(top, bottom) > height or max(left, right) > width:
        raise UserError(f"{said}: it reaches beyond the picture: {picture}.")
    if top >= bottom or left >= right:
        raise UserError(f"{said}: the box is empty: {picture}.")
    return top, left, bottom, right


def _check_cells(cells: np.ndarray, source_size: Size, size: Size) -> None:
    """Each class is averaged over its cells: one without a cell would be a division by zero in the network."""
    where = f"at {size[0]}x{size[1]} (height x width), cut from a picture of {source_size[0]}x{source_size[1]}"
    for person, mask in enumerate(cells[:-1], 1):
        if not mask.any():
            raise UserError(
                f"Person {person}: the box or mask is too small, or lies where the picture is cut: nothing of it is "
                f"left {where}. Make it larger, or move it towards the middle."
            )
    if not cells[-1].any():
        raise UserError(f"The boxes or masks leave no background {where}. Make them smaller.")
