"""models_t5_umt5-xxl-enc-bf16.pth <-> the parameters of `itjax.models.umt5.Umt5`."""

from itjax.weights.mapping import LINEAR, SAME, Row, Table

TABLE: Table = (
    Row("token_embedding.weight", "token_embedding/embedding", SAME),
    Row("blocks.{i}.norm1.weight", "blocks/norm1/scale", SAME),
    Row("blocks.{i}.attn.q.weight", "blocks/q/kernel", LINEAR),
    Row("blocks.{i}.attn.k.weight", "blocks/k/kernel", LINEAR),
    Row("blocks.{i}.attn.v.weight", "blocks/v/kernel", LINEAR),
    Row("blocks.{i}.attn.o.weight", "blocks/out/kernel", LINEAR),
    Row("blocks.{i}.pos_embedding.embedding.weight", "blocks/position_embedding", SAME),
    Row("blocks.{i}.norm2.weight", "blocks/norm2/scale", SAME),
    Row("blocks.{i}.ffn.gate.0.weight", "blocks/gate/kernel", LINEAR),
    Row("blocks.{i}.ffn.fc1.weight", "blocks/fc1/kernel", LINEAR),
    Row("blocks.{i}.ffn.fc2.weight", "blocks/fc2/kernel", LINEAR),
    Row("norm.weight", "norm/scale", SAME),
)
