"""Operations counted from sizes against the traced network's; peaks by kind; rates by a clock that is moved by hand."""

import math
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from itjax import configs
from itjax.config import Networks
from itjax.models.dit import DiT, abstract_parameters
from itjax.models.dit_block import BranchIndices, Persons
from itjax.training import throughput
from itjax.training.flops import forward_flops, train_flops, video_tokens
from itjax.training.throughput import Meter, memory_in_use, peak_flops

PFLOP = 1e15
SQUARE = (21, 80, 80)  # latents of 81 frames of 640x640
TINY = configs.PRESETS["tiny"].networks


def traced_flops(jaxpr):
    """Of all matrix products and convolutions, those in scans as often as they run."""
    total = 0
    for equation in jaxpr.eqns:
        inner = [x for value in equation.params.values() for x in jax.tree.leaves(value, is_leaf=_is_jaxpr) if _is_jaxpr(x)]
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += times * sum(traced_flops(getattr(part, "jaxpr", part)) for part in inner)
        out = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * out * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            total += 2 * out * math.prod(kernel) // kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return total


def _is_jaxpr(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def traced(networks, latent, persons=1, trained=None):
    """Operations of a forward as it is traced, or of the gradient of its output's sum by the parameters of `trained`."""
    sizes, audio = networks.dit, networks.dit.audio
    spec = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    frames, height, width = latent
    voices = (1, persons, 1 + (frames - 1) * audio.frames_per_latent, audio.window, audio.layers, audio.channels)
    masks = Persons(spec(3, height * width // 4), spec(1)) if persons > 1 else None

    def forward(some, rest, latents, condition, sinusoids, text, clip, windows, masks):
        params = {"params": unflatten_dict(some | rest, sep="/")}
        apply = lambda *args, method=None: DiT(sizes).apply(params, *args, method=method)
        time = apply(sinusoids, method="time_features")
        kv = apply(text, clip, windows, None if masks is None else jnp.ones(1), method="keys_values")
        return apply(latents, condition, time, kv, BranchIndices(jnp.zeros(1, int), jnp.zeros(1, int)), masks).sum()

    inputs = (spec(1, *latent, sizes.out_dim), spec(1, *latent, sizes.in_dim - sizes.out_dim), spec(1, sizes.freq_dim))
    inputs += (spec(1, sizes.text_len, sizes.text_dim), spec(1, networks.clip.tokens, sizes.clip_dim), spec(*voices), masks)
    params = flatten_dict(abstract_parameters(sizes), sep="/")
    some = {path: value for path, value in params.items() if path in (trained or ())}
    rest = {path: value for path, value in params.items() if path not in some}
    return traced_flops(jax.make_jaxpr(forward if trained is None else jax.grad(forward))(some, rest, *inputs).jaxpr)


def paths(networks):
    return set(flatten_dict(abstract_parameters(networks.dit), sep="/"))


def test_one_forward_at_480p_is_what_is_known_of_it():
    assert video_tokens(Networks(), SQUARE) == 33_600
    assert forward_flops(Networks(), SQUARE) / PFLOP == pytest.approx(1.89, rel=0.005)


@pytest.mark.parametrize("latent", [(3, 6, 4), (2, 4, 8)])
def test_the_count_is_that_of_the_network_as_it_is_traced(latent):
    assert forward_flops(TINY, latent) == traced(TINY, latent)


def test_two_persons_are_counted_but_for_the_width_that_their_masks_are_padded_to():
    latent, sizes = (3, 6, 4), TINY.dit
    tokens = video_tokens(TINY, latent)
    padded = 2 * sizes.num_layers * sizes.dim * tokens * tokens // latent[0]
    assert forward_flops(TINY, latent, persons=2) == traced(TINY, latent, persons=2) - padded


def test_the_published_network_as_it_is_traced():
    padded = traced(Networks(), SQUARE)  # queries to whole blocks
    assert 0.99 * padded < forward_flops(Networks(), SQUARE) < padded


def test_training_everything_is_three_forwards():
    forward = forward_flops(Networks(), SQUARE)
    assert train_flops(Networks(), SQUARE, paths(Networks()), batch=4) == pytest.approx(12 * forward, rel=1e-3)


@pytest.mark.parametrize(
    "words",
    [("",), ("audio",), ("ffn_in",), ("cross_k/",), ("text_in", "cross_v_img"), ("norm",), ("adapter/proj2", "bias")],
)
def test_a_step_is_that_of_the_gradient_as_it_is_traced(words):
    trained = {path for path in paths(TINY) if any(word in path for word in words)}
    assert train_flops(TINY, (3, 6, 4), trained) == traced(TINY, (3, 6, 4), trained=trained)


def test_frozen_weights_cost_no_gradient_of_their_own():
    networks = Networks()
    dim, layers, tokens = 5120, 40, 33_600
    trained = {path for path in paths(networks) if "audio" in path}
    assert "blocks/audio_q/kernel" in trained
    attention = 4 * layers * dim * tokens**2
    base = 2 * layers * tokens * (6 * dim**2 + 2 * dim * 13824)  # video tokens through frozen layers
    audio = 2 * layers * tokens * 2 * dim**2
    cross = 4 * layers * dim * tokens * (512 + 257)
    assert train_flops(networks, SQUARE, trained) == pytest.approx(
        3 * attention + 2 * base + 3 * audio + 2 * cross, rel=2e-3
    )
    frozen = train_flops(networks, SQUARE, set())
    assert train_flops(networks, SQUARE, {"blocks/ffn_in/kernel"}) - frozen == 2 * layers * tokens * dim * 13824
    keys = train_flops(networks, SQUARE, {"blocks/cross_k/kernel"}) - frozen
    assert keys == 2 * layers * 512 * dim**2 + 2 * layers * dim * tokens * 512  # its own, and that of the keys it makes


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275), ("TPU v5 lite", 197), ("TPU v5e", 197), ("TPU v5", 459), ("TPU v5p", 459), ("TPU v6 lite", 918),
        ("TPU7x", 1153.5), ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA A10", 125), ("NVIDIA L4", 121), ("NVIDIA L40S", 362),
        ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H100 NVL", 835), ("NVIDIA H200", 989),
        ("NVIDIA H20", 148), ("NVIDIA GH200 480GB", 989), ("NVIDIA B200", 2250), ("NVIDIA GB200", 2500),
        ("cpu", None), ("TPU v2", None), ("NVIDIA GeForce RTX 4090", None), ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
    ],
)  # fmt: skip
def test_peak_by_kind(kind, peak):
    assert peak_flops(device(kind)) == (None if peak is None else pytest.approx(peak * 1e12))


def device(kind, stats=None):
    """What is asked of a JAX device."""

    return Mock(spec=jax.Device, device_kind=kind, **{"memory_stats.return_value": stats})


def test_the_fullest_device_tells_the_memory(monkeypatch):
    gib = 2**30
    found = [device("TPU v4", {"bytes_in_use": a * gib, "peak_bytes_in_use": b * gib}) for a, b in ((1, 9), (2, 5))]
    monkeypatch.setattr(throughput.jax, "local_devices", lambda: [*found, device("cpu")])
    memory = memory_in_use()
    assert (memory["memory/device_gib"], memory["memory/device_peak_gib"]) == (2, 9)


def test_without_a_telling_device_the_process_tells_its_own():
    memory = memory_in_use()
    if jax.default_backend() == "cpu":
        assert memory.keys() == {"memory/host_peak_gib"}
    held = bytearray(b"1") * 2**28  # a quarter GiB, written
    before, after = memory["memory/host_peak_gib"], memory_in_use()["memory/host_peak_gib"]
    assert 0.05 < before <= after < 200 and len(held) == 2**28


class Clock:
    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


def test_rates_leave_out_pauses_and_begin_anew_at_each_reading():
    clock = Clock()
    meter = Meter([device("TPU v4")] * 2, clock)
    assert meter.read() == {}
    for _ in range(4):
        clock.seconds += 2
        meter.step_done(tokens=300, flops=110e12)
    with meter.pause():
        clock.seconds += 50
        with meter.pause():
            clock.seconds += 50
    assert meter.read() == pytest.approx(
        {"speed/steps_per_second": 0.5, "speed/tokens_per_second": 150, "speed/share_of_peak": 0.1}
    )
    clock.seconds += 1
    meter.step_done(tokens=100, flops=55e12)
    assert meter.read() == pytest.approx(
        {"speed/steps_per_second": 1, "speed/tokens_per_second": 100, "speed/share_of_peak": 0.1}
    )
    assert meter.read() == {}


def test_a_pause_ends_with_an_error():
    clock = Clock()
    meter = Meter([device("cpu")], clock)
    with pytest.raises(KeyError), meter.pause():
        clock.seconds += 7
        raise KeyError
    clock.seconds += 1
    meter.step_done(tokens=5, flops=1.0)
    assert meter.read() == {"speed/steps_per_second": 1, "speed/tokens_per_second": 5}  # and no share of an unknown peak
