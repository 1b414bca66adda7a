"""Run by test_sharded.py in a process of its own: the chunk loop on 8 fake devices and on one of them, compared.

A picture of 48x48 has 9 tokens a frame: they are padded to 16 on 8 devices, so the masking of padding is tried as well.
"""

import sys

import jax
import numpy as np

import tests.sampling.test_rollout as setup
from itjax.parallel import sharding
from itjax.parallel.sharding import make_mesh, network_shardings
from itjax.sampling import rollout

sharding._SMALL = 2**12  # at these sizes, too, the matrices of a layer are split, and the vectors are not


def run(devices, ulysses, persons, in_turn=False):
    mesh = make_mesh(ulysses, heads=setup.NETWORKS.dit.num_heads, devices=devices)
    specs = setup.network_specs(setup.NETWORKS)
    parameters = {}
    for i, name in enumerate(("dit", "vae")):
        host = setup.random_parameters(specs[name].abstract, i)
        shardings = jax.tree.map(lambda x: x.sharding, network_shardings(name, specs[name].abstract, mesh))
        parameters[name] = jax.device_put(host, shardings)
    with jax.set_mesh(mesh):
        program, invariants, carry, chunks = setup.setting(parameters, persons=persons)
        program = program._replace(in_turn=in_turn)
        before = rollout.compiled_programs()
        output = setup.streamed(program, invariants, carry, chunks)
        compiled = rollout.compiled_programs() - before
        assert compiled == 3, f"{compiled} programs for begin, denoise_step and finish of {setup.CHUNKS} chunks"
    split = sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(parameters["dit"]))
    return output, split


def main():
    setup.HEIGHT = setup.WIDTH = 48
    setup.CHUNKS = 2
    devices = jax.devices()
    assert len(devices) == 8
    for persons, ulysses, orders in ((1, 4, (False,)), (2, 2, (False, True))):
        one, _ = run(devices[:1], 1, persons)
        for in_turn in orders:
            many, split = run(devices, ulysses, persons, in_turn)
            assert split > 10, split
            for name in ("latents", "frames"):
                ours, expected = getattr(many, name), getattr(one, name)
                error = np.abs(ours - expected).max()
                print(persons, ulysses, name, error, in_turn)
                assert np.allclose(ours, expected, atol=2e-4 if name == "latents" else 2e-3), (name, error)


if __name__ == "__main__":
    sys.exit(main())
