"""Places an array on its devices shard by shard, so that the host never holds more of it than one device does."""

from collections.abc import Callable

import jax
import numpy as np

Index = tuple[slice, ...]


def onto_shards(wanted: jax.ShapeDtypeStruct, read: Callable[[Index], np.ndarray]) -> jax.Array:
    """Builds the array described by `wanted`, calling `read(index)` once per distinct shard, even if it is replicated.

    Without a sharding, the array goes to the first local device. jax.make_array_from_callback is not used: it requests
    all shards before it transfers the first one, and so holds the whole array in host memory.
    """
    shape = tuple(wanted.shape)
    sharding = wanted.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    indices = sharding.addressable_devices_indices_map(shape)
    devices_by_bounds: dict[tuple, list[jax.Device]] = {}  # shard bounds -> devices that hold this shard
    for device, index in indices.items():
        bounds = tuple(axis.indices(length)[:2] for axis, length in zip(index or (), shape, strict=True))
        devices_by_bounds.setdefault(bounds, []).append(device)
    shards = {}
    for bounds, holders in devices_by_bounds.items():
        values = read(tuple(slice(*bound) for bound in bounds))
        for device in holders:
            target = jax.sharding.SingleDeviceSharding(device, memory_kind=sharding.memory_kind)
            shards[device] = jax.device_put(values, target)
        jax.block_until_ready([shards[device] for device in holders])  # otherwise all shards would queue in host memory
    return jax.make_array_from_single_device_arrays(shape, sharding, [shards[device] for device in indices])
