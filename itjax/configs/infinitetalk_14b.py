"""InfiniteTalk on Wan2.1-I2V-14B: the published networks, at 480p and 720p."""

from itjax.config import Networks, PictureSize, Preset
from itjax.media.picture_sizes import SIZES_480, SIZES_720

PRESET = Preset(
    name="infinitetalk-14b",
    networks=Networks(),
    sizes={
        "infinitetalk-480": PictureSize(
            table=SIZES_480,
            shift=7.0,
            teacache=(2.57151496e5, -3.54229917e4, 1.40286849e3, -1.35890334e1, 1.32517977e-1),
        ),
        "infinitetalk-720": PictureSize(
            table=SIZES_720,
            shift=11.0,
            teacache=(8.10705460e3, 2.13393892e3, -3.72934672e2, 1.66203073e1, -4.17769401e-2),
        ),
    },
)
