"""Run by test_compiled.py in a process of its own with 8 fake devices: what moves between devices when the VAE decodes.

The published network decodes the first latent frame and a later one, at 640x640. Nothing is run.
"""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from itjax import configs
from itjax.models import vae
from itjax.parallel.sharding import make_mesh, network_shardings
from itjax.weights.specs import network_specs
from tests.sampling.collectives import collectives


def main() -> None:
    networks = configs.PRESETS["infinitetalk-14b"].networks
    mesh = make_mesh(heads=networks.dit.num_heads)
    parameters = network_shardings("vae", network_specs(networks)["vae"].abstract, mesh)
    latents = jax.ShapeDtypeStruct((1, 2, 80, 80, 16), jnp.float32, sharding=NamedSharding(mesh, P()))
    with jax.set_mesh(mesh):
        decode = jax.jit(lambda parameters, latents: vae.decode(parameters, latents, networks.vae))
        moved = collectives(decode.trace(parameters, latents).lower().compile().as_text())
    print(moved)
    total = {kind: sum(kinds.get(kind, 0) for kinds in moved.values()) for kinds in moved.values() for kind in kinds}
    # rows at the borders of each convolution (140 MiB in float32), and keys and values of the attention (38 MiB)
    assert set(total) == {"collective-permute", "all-gather"}, total
    assert sum(total.values()) < 200, total


if __name__ == "__main__":
    main()
