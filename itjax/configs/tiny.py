"""Tiny networks with all parts of the real ones, used with random weights in the test recordings: the output is noise."""

from dataclasses import replace

from itjax.configs.infinitetalk_14b import PRESET as FULL
from itjax.config import AudioAdapterSizes, ClipSizes, DiTSizes, Networks, Preset, Umt5Sizes, VaeSizes, Wav2Vec2Sizes

SIZES = {0.50: (32, 64), 0.75: (48, 64), 1.00: (48, 48), 1.33: (64, 48), 2.00: (64, 32)}

PRESET = Preset(
    name="tiny",
    networks=Networks(
        dit=DiTSizes(
            dim=96, ffn_dim=160, num_heads=4, num_layers=3, freq_dim=32, text_dim=48, text_len=64, clip_dim=40,
            audio=AudioAdapterSizes(layers=3, channels=24, intermediate_dim=20, output_dim=28, context_tokens=6),
        ),
        vae=VaeSizes(dim=4),
        umt5=Umt5Sizes(vocabulary=320, width=48, attention_width=40, mlp=56, layers=2, heads=4),
        clip=ClipSizes(width=40, layers=3, heads=2, mlp=160),
        wav2vec2=Wav2Vec2Sizes(
            conv_width=16, width=24, layers=3, heads=2, mlp=40, position_kernel=16, position_groups=4
        ),
    ),
    sizes={name: replace(size, table=SIZES) for name, size in FULL.sizes.items()},
)  # fmt: skip
