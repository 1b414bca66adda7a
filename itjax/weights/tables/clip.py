"""models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth <-> the parameters of `itjax.models.clip.Clip`."""

from itjax.weights.mapping import CONV2D, LINEAR, SAME, Row, Table


def unused(layers: int) -> tuple[str, ...]:
    """Patterns (fnmatch) of the tensors that do not affect the tokens, in a file with `layers` visual layers."""
    return ("textual.*", "log_scale", "visual.head", "visual.post_norm.*", f"visual.transformer.{layers - 1}.*")


_LAYER = "visual.transformer.{i}"

TABLE: Table = (
    Row("visual.patch_embedding.weight", "patch_embedding/kernel", CONV2D),
    Row("visual.cls_embedding", "class_embedding", SAME),
    Row("visual.pos_embedding", "position_embedding", SAME),
    Row("visual.pre_norm.weight", "norm/scale", SAME),
    Row("visual.pre_norm.bias", "norm/bias", SAME),
    Row(f"{_LAYER}.norm1.weight", "blocks/norm1/scale", SAME),
    Row(f"{_LAYER}.norm1.bias", "blocks/norm1/bias", SAME),
    Row(f"{_LAYER}.attn.to_qkv.weight", "blocks/qkv/kernel", LINEAR),
    Row(f"{_LAYER}.attn.to_qkv.bias", "blocks/qkv/bias", SAME),
    Row(f"{_LAYER}.attn.proj.weight", "blocks/out/kernel", LINEAR),
    Row(f"{_LAYER}.attn.proj.bias", "blocks/out/bias", SAME),
    Row(f"{_LAYER}.norm2.weight", "blocks/norm2/scale", SAME),
    Row(f"{_LAYER}.norm2.bias", "blocks/norm2/bias", SAME),
    Row(f"{_LAYER}.mlp.0.weight", "blocks/fc1/kernel", LINEAR),
    Row(f"{_LAYER}.mlp.0.bias", "blocks/fc1/bias", SAME),
    Row(f"{_LAYER}.mlp.2.weight", "blocks/fc2/kernel", LINEAR),
    Row(f"{_LAYER}.mlp.2.bias", "blocks/fc2/bias", SAME),
)
