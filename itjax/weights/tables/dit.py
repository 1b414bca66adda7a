"""Names of all DiT tensors: the base (Wan2.1-I2V files) and the audio parts (infinitetalk.safetensors)."""

from itjax.weights.mapping import CONV3D, LINEAR, SAME, Layout, Row, Table


def linear(torch: str, path: str) -> Table:
    """Rows of a Linear."""
    return Row(f"{torch}.weight", f"{path}/kernel", LINEAR), Row(f"{torch}.bias", f"{path}/bias", SAME)


def layer_norm(torch: str, path: str) -> Table:
    """Rows of a LayerNorm with weight and bias."""
    return Row(f"{torch}.weight", f"{path}/scale", SAME), Row(f"{torch}.bias", f"{path}/bias", SAME)


def rms_norm(torch: str, path: str) -> Table:
    """The row of an RMSNorm."""
    return (Row(f"{torch}.weight", f"{path}/scale", SAME),)


MODULATION = Layout(squeeze=(0,))

BASE: Table = (
    Row("patch_embedding.weight", "patch_embedding/kernel", CONV3D),
    Row("patch_embedding.bias", "patch_embedding/bias", SAME),
    *linear("text_embedding.0", "text_in"),
    *linear("text_embedding.2", "text_out"),
    *linear("time_embedding.0", "time_in"),
    *linear("time_embedding.2", "time_out"),
    *linear("time_projection.1", "time_projection"),
    *layer_norm("img_emb.proj.0", "image_norm_in"),
    *linear("img_emb.proj.1", "image_in"),
    *linear("img_emb.proj.3", "image_out"),
    *layer_norm("img_emb.proj.4", "image_norm_out"),
    Row("blocks.{i}.modulation", "blocks/modulation", MODULATION),
    *linear("blocks.{i}.self_attn.q", "blocks/q"),
    *linear("blocks.{i}.self_attn.k", "blocks/k"),
    *linear("blocks.{i}.self_attn.v", "blocks/v"),
    *linear("blocks.{i}.self_attn.o", "blocks/o"),
    *rms_norm("blocks.{i}.self_attn.norm_q", "blocks/norm_q"),
    *rms_norm("blocks.{i}.self_attn.norm_k", "blocks/norm_k"),
    *layer_norm("blocks.{i}.norm3", "blocks/norm3"),
    *linear("blocks.{i}.cross_attn.q", "blocks/cross_q"),
    *linear("blocks.{i}.cross_attn.k", "blocks/cross_k"),
    *linear("blocks.{i}.cross_attn.v", "blocks/cross_v"),
    *linear("blocks.{i}.cross_attn.o", "blocks/cross_o"),
    *linear("blocks.{i}.cross_attn.k_img", "blocks/cross_k_img"),
    *linear("blocks.{i}.cross_attn.v_img", "blocks/cross_v_img"),
    *rms_norm("blocks.{i}.cross_attn.norm_q", "blocks/cross_norm_q"),
    *rms_norm("blocks.{i}.cross_attn.norm_k", "blocks/cross_norm_k"),
    *rms_norm("blocks.{i}.cross_attn.norm_k_img", "blocks/cross_norm_k_img"),
    *linear("blocks.{i}.ffn.0", "blocks/ffn_in"),
    *linear("blocks.{i}.ffn.2", "blocks/ffn_out"),
    Row("head.modulation", "head_modulation", MODULATION),
    *linear("head.head", "head"),
)

AUDIO: Table = (
    *linear("audio_proj.proj1", "audio_adapter/proj1"),
    *linear("audio_proj.proj1_vf", "audio_adapter/proj1_vf"),
    *linear("audio_proj.proj2", "audio_adapter/proj2"),
    *linear("audio_proj.proj3", "audio_adapter/proj3"),
    *layer_norm("audio_proj.norm", "audio_adapter/norm"),
    *linear("blocks.{i}.audio_cross_attn.q_linear", "blocks/audio_q"),
    *linear("blocks.{i}.audio_cross_attn.kv_linear", "blocks/audio_kv"),
    *linear("blocks.{i}.audio_cross_attn.proj", "blocks/audio_o"),
    *layer_norm("blocks.{i}.norm_x", "blocks/norm_x"),
)

TABLE: Table = BASE + AUDIO
