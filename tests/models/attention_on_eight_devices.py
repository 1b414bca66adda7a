"""Run by test_attention.py in a process of its own with 8 fake devices: attention on every kind of mesh."""

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from itjax.models import attention, splash
from itjax.parallel.sharding import SEQUENCE, make_mesh

MESHES = ((8, 1), (4, 2), (1, 8), (2, 2))  # ulysses and context; the last one has two shards of the batch
NUM_KEYS = 60
TOKENS = P("data", SEQUENCE)


def plain(q, k, v, num_keys):
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k[:, :num_keys]) / q.shape[-1] ** 0.5
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, -1), v[:, :num_keys])


def value_and_gradients(call, q, k, v):
    """What attention gives, and the gradients of its product with the queries."""
    y, pull = jax.vjp(call, q, k, v)
    return y, *pull(q)


def check_values(mesh, scores: int) -> None:
    """Values and gradients are those of one device, whether or not the queries of a device are taken in blocks."""
    attention._SCORES = scores
    rng = np.random.default_rng(0)
    draw = lambda length: rng.normal(size=(2, length, 8, 16)).astype(np.float32)
    split = lambda x: jax.device_put(x, NamedSharding(mesh, TOKENS))
    q, k, v, short_k, short_v = draw(64), draw(64), draw(64), draw(7), draw(7)
    with jax.set_mesh(mesh):
        among_tokens = lambda *x: value_and_gradients(lambda *y: attention.self_attention(*y, NUM_KEYS), *x)
        to_others = lambda *x: value_and_gradients(attention.cross_attention, *x)
        found = jax.jit(among_tokens)(split(q), split(k), split(v)), jax.jit(to_others)(split(q), short_k, short_v)
    assert found[0][0].sharding.spec == found[1][0].sharding.spec == TOKENS, found[0][0].sharding
    expected = (
        value_and_gradients(lambda *x: plain(*x, NUM_KEYS), q, k, v),
        value_and_gradients(lambda *x: plain(*x, None), q, short_k, short_v),
    )
    # the sums of the gradients are made in another order: 64 terms of about 1 in float32
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def check_cudnn(mesh) -> None:
    """JAX's rules for splitting cuDNN's kernel accept what it is given: all that is missing on a CPU is the kernel."""
    struct = lambda length, spec: jax.ShapeDtypeStruct((2, length, 8, 128), jnp.bfloat16, sharding=NamedSharding(mesh, spec))
    tokens, others, odd = struct(256, TOKENS), struct(64, P("data")), struct(257, P("data"))  # CLIP has 257 tokens
    total = lambda call: jax.grad(lambda *x: call(*x).sum().astype(jnp.float32), (0, 1, 2))
    padded = lambda *x: attention.self_attention(*x, 250)
    cases = [(call, (tokens,) * 3) for call in (attention.self_attention, padded, total(padded))]
    cases += [(call, (tokens, others, others)) for call in (attention.cross_attention, total(attention.cross_attention))]
    cases += [(total(attention.cross_attention), (tokens, odd, odd))]
    for call, inputs in cases:
        try:
            with jax.set_mesh(mesh):
                jax.jit(call).trace(*inputs).lower().compile()
        except NotImplementedError as error:
            assert "'dot_product_attention_fwd' not found for platform cpu" in str(error), error
        else:
            raise AssertionError("cuDNN's kernel was not chosen")


def check_splash(mesh) -> None:
    """The TPU's kernel on each device's part, in interpret mode, with its gradients."""
    rng = np.random.default_rng(0)
    draw = lambda length: jnp.asarray(rng.normal(size=(2, length, 8, 128)), jnp.bfloat16)
    split = lambda x: jax.device_put(x, NamedSharding(mesh, TOKENS))
    q, k, v = draw(256), draw(256), draw(256)
    with jax.set_mesh(mesh):
        among_tokens = lambda *x: value_and_gradients(lambda *y: attention.self_attention(*y, 250), *x)
        found = jax.jit(among_tokens)(split(q), split(k), split(v))
    wide = [x.astype(jnp.float32) for x in (q, k, v)]
    for ours, exact in zip(found, value_and_gradients(lambda *x: plain(*x, 250), *wide), strict=True):
        # bfloat16 has 8 bits: what is read and written is good to 0.2 %, and the products in between to 0.4 %
        assert jnp.linalg.norm(ours - exact) < 0.01 * jnp.linalg.norm(exact)


def main() -> None:
    meshes = [make_mesh(ulysses, context, heads=8) for ulysses, context in MESHES]
    for mesh in meshes:
        for scores in (2**28, 64):
            check_values(mesh, scores)
    jax.default_backend = lambda: "gpu"
    cudnn.check_cudnn_version = lambda: 91000
    cudnn.check_compute_capability = lambda capability: True
    cudnn.is_cuda_compute_capability_equal = lambda capability: False
    for mesh in meshes:
        check_cudnn(mesh)
    jax.default_backend = lambda: "tpu"
    kernel, calls = splash.splash_attention, []
    splash.splash_attention = lambda *inputs: calls.append(0) or kernel(*inputs, True)
    check_splash(meshes[-1])  # which splits the batch, the heads and the queries
    assert len(calls) == 1
    print(f"{len(meshes)} meshes")


if __name__ == "__main__":
    main()
