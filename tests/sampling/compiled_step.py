"""Run by test_compiled.py in a process of its own with 8 fake devices: what moves between devices in a step of full size.

    python -m tests.sampling.compiled_step ULYSSES CONTEXT PERSONS IN_TURN

The networks are the published ones with two layers instead of forty, at 640x640 and 81 frames. Nothing is run. A CPU has no
products in bfloat16, so the compiler moves the DiT's arrays as float32: 4 bytes an element.
"""

import math
import sys
from dataclasses import replace

import jax

from benchmarks.abstract_programs import programs
from itjax import configs
from itjax.parallel.sharding import make_mesh
from itjax.weights.specs import network_specs
from tests.sampling.collectives import MIB, collectives

HEIGHT = WIDTH = 640
# layers that make the keys and values of the conditions, once for all steps
BEFORE_THE_STEPS = ("cross_k", "cross_v", "cross_k_img", "cross_v_img", "cross_norm_k", "cross_norm_k_img", "audio_kv")


def main(ulysses: int, context: int, persons: int, in_turn: int) -> None:
    networks = configs.PRESETS["infinitetalk-14b"].networks
    dit = replace(networks.dit, num_layers=2)
    networks = replace(networks, dit=dit)
    mesh = make_mesh(ulysses, context, heads=dit.num_heads)
    specs = network_specs(networks)
    with jax.set_mesh(mesh):
        all_programs = programs(networks, specs, mesh, HEIGHT, WIDTH, persons, bool(in_turn))
        call, inputs = {name: (call, inputs) for name, call, inputs in all_programs}["one step"]
        compiled = jax.jit(call).trace(*inputs).lower().compile()
    moved = [kinds for name, kinds in collectives(compiled.as_text()).items() if not name.startswith("ENTRY")]
    layer = next(kinds for kinds in moved if "all-to-all" in kinds)

    blocks = specs["dit"].abstract["blocks"]
    used = {name: layer for name, layer in blocks.items() if name not in BEFORE_THE_STEPS}
    assert len(used) == len(blocks) - len(BEFORE_THE_STEPS)
    weights = sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(used)) * 4 / MIB
    branches, tokens = 3, 21 * HEIGHT * WIDTH // 256
    cross_keys = dit.text_len + 257 + 21 * dit.audio.context_tokens * persons
    keys_values = 2 * branches * cross_keys * dit.dim * 4 / MIB
    if context > 1:  # those of the tokens, for this device's heads
        keys_values += 2 * branches * tokens * dit.dim / ulysses * 4 / MIB * (1 if persons == 1 else 22 / 21)
    if in_turn:  # what is in the loop over branches, for all of them; the weights are gathered once, around that loop
        (outside,) = (kinds for kinds in moved if kinds is not layer)
        assert list(outside) == ["all-gather"] and outside["all-gather"] < 1.02 * weights, outside
        layer = {kind: branches * size for kind, size in layer.items()}
        weights = 0.0
    share = branches * tokens * dit.dim / (ulysses * context) * 4 / MIB  # of an array of all tokens
    print({kind: round(size) for kind, size in layer.items()}, f"weights {weights:.0f}, keys and values {keys_values:.0f}")
    assert layer["all-gather"] < 1.02 * (weights + keys_values)
    # q, k, v to heads, and the result back; with two persons also k and v of the first of 21 frames, and back
    assert layer["all-to-all"] < 1.02 * share * (4 if persons == 1 else 5 + 2 / 21)
    assert layer.get("all-reduce", 0) < 0.1  # extrema of the persons' attention
    assert set(layer) <= {"all-gather", "all-to-all", "all-reduce"}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
