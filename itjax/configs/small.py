"""Small networks for the drawn world of itjax.synthetic: all parts of the real ones, trained on two CPU cores or one GPU."""

from dataclasses import replace

from itjax.configs.infinitetalk_14b import PRESET as FULL
from itjax.config import AudioAdapterSizes, DiTSizes, Networks, Preset, Sampler, VaeSizes, Wav2Vec2Sizes
from itjax.training.contrastive.settings import CLIP, TEXT_LEN, UMT5

SIZES = {0.50: (64, 128), 1.00: (64, 64), 2.00: (128, 64)}

WAV2VEC2 = Wav2Vec2Sizes(conv_width=64, width=192, layers=4, heads=6, mlp=768, position_kernel=32, position_groups=16)

PRESET = Preset(
    name="small",
    networks=Networks(
        dit=DiTSizes(
            dim=256, ffn_dim=768, num_heads=4, num_layers=7, freq_dim=64,
            text_dim=UMT5.width, text_len=TEXT_LEN, clip_dim=CLIP.width,
            audio=AudioAdapterSizes(
                layers=WAV2VEC2.layers, channels=WAV2VEC2.width, intermediate_dim=128, output_dim=128, context_tokens=8
            ),
        ),
        vae=VaeSizes(dim=12, num_res_blocks=1),
        umt5=UMT5,
        clip=CLIP,
        wav2vec2=WAV2VEC2,
    ),
    sizes={name: replace(size, table=SIZES, shift=3.0) for name, size in FULL.sizes.items()},
    sampler=Sampler(steps=8, text_scale=1.0, audio_scale=1.5),
)  # fmt: skip
