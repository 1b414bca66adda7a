"""The training step of the published networks at their full size, from shapes alone: what trains, what it leaves, and that
it lowers for 32 TPU chips with everything large split over them."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from train_memory import LARGE, abstract_inputs, lower

from itjax import configs
from itjax.configs.training import PRESETS
from itjax.parallel.sharding import make_mesh, with_shardings
from itjax.training import parameters, state
from itjax.training.config import Optimizer
from itjax.training.parameters import flat, is_layer_matrix

NETWORKS = configs.PRESETS["infinitetalk-14b"].networks
AUDIO, LORA, FULL = KINDS = ("infinitetalk-14b", "infinitetalk-14b-lora", "infinitetalk-14b-full")
HEIGHT, WIDTH = 640, 640


def specs(kind):
    return parameters.abstract(NETWORKS.dit, PRESETS[kind][1].trained)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def shapes():
    """What trains and what is frozen of the full network, by preset."""
    return {kind: specs(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def published(recordings):
    """published(name) -> the shape of every tensor of an official file."""
    return lambda name: json.loads((recordings / "full_size" / f"{name}.json").read_text()).values()


def test_what_trains_is_what_the_official_files_hold(shapes, published):
    audio, base = published("infinitetalk_audio"), published("wan2.1_i2v_14b_dit")
    elements = lambda tensors: sum(math.prod(shape) for shape in tensors)
    assert len(audio) == 330 and round(elements(audio) / 1e9, 3) == 2.487 and round(elements(base) / 1e9, 2) == 16.39
    trains, frozen = shapes[AUDIO]
    assert (count(trains), count(frozen)) == (elements(audio), elements(base))
    trains, frozen = shapes[FULL]
    assert count(trains) == elements(audio) + elements(base) and not frozen


def test_lora_of_rank_128_stands_beside_the_whole_network(shapes):
    trains, frozen = shapes[LORA]
    dit, rank = NETWORKS.dit, 128
    square, mlp = rank * 2 * dit.dim, rank * (dit.dim + dit.ffn_dim)
    # q, k, v, o among tokens and towards text; in and out of the MLP
    assert count(trains) == dit.num_layers * (8 * square + 2 * mlp)
    assert count(frozen) == count(shapes[FULL][0]) and not set(flat(trains)) & set(flat(frozen))


def test_a_step_lowers_for_32_chips_with_everything_split_and_the_state_in_its_place():
    """In a process of its own, whose CPU stands for 32 chips."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == [*KINDS, "muon"]


def lower_for_32_chips():
    """Lowers the three steps for TPU, and checks each."""
    jax.config.update("jax_num_cpu_devices", 32)
    mesh = make_mesh(2, 1, heads=NETWORKS.dit.num_heads)
    for kind in KINDS:
        settings = PRESETS[kind][1]
        inputs = abstract_inputs(settings, NETWORKS, specs(kind), mesh, HEIGHT, WIDTH)
        assert inputs.batch.latents.shape == (32, 21, 80, 80, 16)
        lowered = lower(settings, NETWORKS, inputs, mesh, "tpu")
        check_shapes(inputs, *lowered.out_info)
        check_places(inputs, lowered.as_text())
        print(kind)
    check_muon(mesh)
    print("muon")


def check_shapes(inputs, after, report):
    """The state comes out in the shapes and types that it went in with."""
    told = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert told(after) == told(inputs.state)
    assert report.losses.shape == (32,) and report.loss.dtype == jnp.float32


def check_places(inputs, text):
    """What is large of state and frozen parameters is split, and each part of the new state takes the old one's place."""
    main = next(line for line in text.splitlines() if "@main(" in line).partition(") -> (")[0]
    arguments = re.split(r"%arg\d+: ", main)[1:]
    assert len(arguments) == len(jax.tree.leaves(inputs)), "an argument is not used"
    state, frozen = jax.tree.leaves(inputs.state), jax.tree.leaves(inputs.frozen)
    for number, argument in enumerate(arguments[: len(state)]):
        assert f"tf.aliasing_output = {number} :" in argument, argument
    del arguments[len(state)]  # `good`, between them
    large = 0
    for leaf, argument in zip(state + frozen, arguments, strict=False):
        if leaf.size >= LARGE:
            assert '{"data", "context", "ulysses"}' in argument, argument
            large += leaf.size
    assert large > 0.999 * count((state, frozen))


def check_muon(mesh):
    """Compiled, the update of the audio parts moves whole matrices to the devices and back: twice their bytes at most, with
    the 24 empty layers that 40 are filled up by. No device has all of a matrix's layers."""
    trains = with_shardings(specs(AUDIO)[0], mesh)
    transform = state.optimizer_transform(Optimizer("muon"))
    held = with_shardings(jax.eval_shape(transform.init, trains), mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, (trains, held))
    with jax.set_mesh(mesh):
        compiled = jax.jit(transform.update, out_shardings=places, donate_argnums=1).lower(trains, held, trains).compile()
    moved = 0
    for shapes, kind in re.findall(
        r"= (.*?) (all-[a-z-]+|collective-permute|reduce-scatter)(?:-start)?\(", compiled.as_text()
    ):
        size = sum(4 * math.prod(map(int, shape.split(","))) for shape in re.findall(r"f32\[([\d,]+)\]", shapes))
        assert kind == "all-to-all" or size < 100, (kind, shapes)  # the gradient's norm is a sum over all
        moved += size
    matrices = 4 * sum(leaf.size for path, leaf in flat(trains).items() if is_layer_matrix(path))
    filled = 64 / NETWORKS.dit.num_layers
    assert 0 < moved <= 2 * filled * matrices / mesh.size, (moved, matrices)
    needed = compiled.memory_analysis().temp_size_in_bytes
    assert needed < 6 * filled * matrices / mesh.size, needed


if __name__ == "__main__":
    lower_for_32_chips()
