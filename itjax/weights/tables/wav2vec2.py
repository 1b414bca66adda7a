"""chinese-wav2vec2-base/model.safetensors <-> the parameters of `itjax.models.wav2vec2.Wav2Vec2`."""

from itjax.weights.mapping import CONV1D, LINEAR, SAME, Row, Table

# Mask embedding and heads of pre-training, which some files still contain
UNUSED = ("masked_spec_embed", "quantizer.*", "project_hid.*", "project_q.*", "lm_head.*")

_CONVOLUTIONS = 7  # in wav2vec 2.0 of every size; their shapes differ, so they are not stacked
_POSITIONS = "encoder.pos_conv_embed.conv"
_LAYER = "encoder.layers.{i}"

PREFIX = "wav2vec2."  # of all names, in files that include a head
# The weight norm's two tensors: names before torch 2.1 -> current names
RENAMED = {
    f"{_POSITIONS}.weight_g": f"{_POSITIONS}.parametrizations.weight.original0",
    f"{_POSITIONS}.weight_v": f"{_POSITIONS}.parametrizations.weight.original1",
}

TABLE: Table = (
    *(
        Row(f"feature_extractor.conv_layers.{i}.conv.weight", f"feature_extractor/conv_{i}/kernel", CONV1D)
        for i in range(_CONVOLUTIONS)
    ),
    Row("feature_extractor.conv_layers.0.layer_norm.weight", "feature_extractor/norm/scale", SAME),
    Row("feature_extractor.conv_layers.0.layer_norm.bias", "feature_extractor/norm/bias", SAME),
    Row("feature_projection.layer_norm.weight", "feature_projection/norm/scale", SAME),
    Row("feature_projection.layer_norm.bias", "feature_projection/norm/bias", SAME),
    Row("feature_projection.projection.weight", "feature_projection/projection/kernel", LINEAR),
    Row("feature_projection.projection.bias", "feature_projection/projection/bias", SAME),
    Row(f"{_POSITIONS}.parametrizations.weight.original0", "encoder/positions/gain", CONV1D),
    Row(f"{_POSITIONS}.parametrizations.weight.original1", "encoder/positions/direction", CONV1D),
    Row(f"{_POSITIONS}.bias", "encoder/positions/bias", SAME),
    Row("encoder.layer_norm.weight", "encoder/norm/scale", SAME),
    Row("encoder.layer_norm.bias", "encoder/norm/bias", SAME),
    Row(f"{_LAYER}.attention.q_proj.weight", "encoder/blocks/q/kernel", LINEAR),
    Row(f"{_LAYER}.attention.q_proj.bias", "encoder/blocks/q/bias", SAME),
    Row(f"{_LAYER}.attention.k_proj.weight", "encoder/blocks/k/kernel", LINEAR),
    Row(f"{_LAYER}.attention.k_proj.bias", "encoder/blocks/k/bias", SAME),
    Row(f"{_LAYER}.attention.v_proj.weight", "encoder/blocks/v/kernel", LINEAR),
    Row(f"{_LAYER}.attention.v_proj.bias", "encoder/blocks/v/bias", SAME),
    Row(f"{_LAYER}.attention.out_proj.weight", "encoder/blocks/out/kernel", LINEAR),
    Row(f"{_LAYER}.attention.out_proj.bias", "encoder/blocks/out/bias", SAME),
    Row(f"{_LAYER}.layer_norm.weight", "encoder/blocks/norm1/scale", SAME),
    Row(f"{_LAYER}.layer_norm.bias", "encoder/blocks/norm1/bias", SAME),
    Row(f"{_LAYER}.feed_forward.intermediate_dense.weight", "encoder/blocks/fc1/kernel", LINEAR),
    Row(f"{_LAYER}.feed_forward.intermediate_dense.bias", "encoder/blocks/fc1/bias", SAME),
    Row(f"{_LAYER}.feed_forward.output_dense.weight", "encoder/blocks/fc2/kernel", LINEAR),
    Row(f"{_LAYER}.feed_forward.output_dense.bias", "encoder/blocks/fc2/bias", SAME),
    Row(f"{_LAYER}.final_layer_norm.weight", "encoder/blocks/norm2/scale", SAME),
    Row(f"{_LAYER}.final_layer_norm.bias", "encoder/blocks/norm2/bias", SAME),
)


def published_name(name: str) -> str:
    """The name in TABLE or UNUSED of a tensor called `name` in a file of another version."""
    name = name.removeprefix(PREFIX)
    return RENAMED.get(name, name)
