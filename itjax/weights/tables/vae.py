"""Names of all VAE tensors. The official code numbers its layers across all levels; our names contain the level."""

from itjax.config import VaeSizes
from itjax.weights.mapping import CONV2D, CONV3D, SAME, Layout, Row, Table

GAMMA3D = Layout(squeeze=(1, 2, 3))
GAMMA2D = Layout(squeeze=(1, 2))


def conv(torch: str, path: str, layout: Layout = CONV3D) -> Table:
    """Rows of a convolution."""
    return Row(f"{torch}.weight", f"{path}/kernel", layout), Row(f"{torch}.bias", f"{path}/bias", SAME)


def residual(torch: str, path: str, shortcut: bool) -> Table:
    """Rows of a ResidualBlock. `shortcut`: whether the channels change, so that the input is convolved, too."""
    return (
        Row(f"{torch}.residual.0.gamma", f"{path}/norm1/gamma", GAMMA3D),
        *conv(f"{torch}.residual.2", f"{path}/conv1/conv"),
        Row(f"{torch}.residual.3.gamma", f"{path}/norm2/gamma", GAMMA3D),
        *conv(f"{torch}.residual.6", f"{path}/conv2/conv"),
        *(conv(f"{torch}.shortcut", f"{path}/shortcut") if shortcut else ()),
    )


def middle(torch: str, path: str) -> Table:
    """Rows of a MiddleBlock."""
    return (
        *residual(f"{torch}.0", f"{path}/res1", shortcut=False),
        Row(f"{torch}.1.norm.gamma", f"{path}/attention/norm/gamma", GAMMA2D),
        *conv(f"{torch}.1.to_qkv", f"{path}/attention/to_qkv", CONV2D),
        *conv(f"{torch}.1.proj", f"{path}/attention/proj", CONV2D),
        *residual(f"{torch}.2", f"{path}/res2", shortcut=False),
    )


def resample(torch: str, path: str, in_time: bool) -> Table:
    """Rows of a Downsample or an Upsample; with `in_time`, it has a temporal convolution."""
    rows = conv(f"{torch}.resample.1", f"{path}/conv", CONV2D)
    return rows + (conv(f"{torch}.time_conv", f"{path}/time_conv") if in_time else ())


def levels(torch: str, path: str, widths: list[tuple[int, int]], blocks: int, in_time: list[bool], direction: str) -> Table:
    """Residual blocks and resampling of each level, numbered consecutively; widths: (channels in, channels out)."""
    rows: list[Row] = []
    number = 0
    for level, (before, width) in enumerate(widths):
        for i in range(blocks):
            shortcut = i == 0 and before != width
            rows += residual(f"{torch}.{number}", f"{path}/level{level}_res{i}", shortcut)
            number += 1
        if level < len(in_time):
            rows += resample(f"{torch}.{number}", f"{path}/level{level}_{direction}", in_time[level])
            number += 1
    return tuple(rows)


def table(sizes: VaeSizes) -> Table:
    """All rows of a VAE of these sizes."""
    down = [sizes.dim * m for m in sizes.multipliers]
    up = down[::-1]
    down_widths = list(zip([sizes.dim, *down], down, strict=False))
    up_widths = list(zip([up[0], *(width // 2 for width in up)], up, strict=False))
    blocks, in_time = sizes.num_res_blocks, list(sizes.time_downsample)
    return (
        *conv("encoder.conv1", "encoder/conv_in/conv"),
        *levels("encoder.downsamples", "encoder", down_widths, blocks, in_time, "down"),
        *middle("encoder.middle", "encoder/middle"),
        Row("encoder.head.0.gamma", "encoder/norm_out/gamma", GAMMA3D),
        *conv("encoder.head.2", "encoder/conv_out/conv"),
        *conv("conv1", "encoder/to_moments"),
        *conv("conv2", "decoder/from_latent"),
        *conv("decoder.conv1", "decoder/conv_in/conv"),
        *middle("decoder.middle", "decoder/middle"),
        *levels("decoder.upsamples", "decoder", up_widths, blocks + 1, in_time[::-1], "up"),
        Row("decoder.head.0.gamma", "decoder/norm_out/gamma", GAMMA3D),
        *conv("decoder.head.2", "decoder/conv_out/conv"),
    )
