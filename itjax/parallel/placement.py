"""Puts an array on its devices part by part, so that the host never holds more of it than one device does."""

from collections.abc import Callable

import jax
import numpy as np

Index = tuple[slice, ...]


def onto_shards(wanted: jax.ShapeDtypeStruct, read: Callable[[Index], np.ndarray]) -> jax.Array:
    """The array that `wanted` describes, from `read(index)` of each part: replicas are read once.

    Without a sharding it goes to the first local device. Not by jax.make_array_from_callback, which asks for all parts
    before it sends the first, and so has the whole array in host memory.
    """
    shape = tuple(wanted.shape)
    sharding = wanted.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    indices = sharding.addressable_devices_indices_map(shape)
    devices: dict[tuple, list[jax.Device]] = {}  # by what they hold
    for device, index in indices.items():
        bounds = tuple(part.indices(length)[:2] for part, length in zip(index or (), shape, strict=True))
        devices.setdefault(bounds, []).append(device)
    parts = {}
    for bounds, holders in devices.items():
        values = read(tuple(slice(*bound) for bound in bounds))
        for device in holders:
            place = jax.sharding.SingleDeviceSharding(device, memory_kind=sharding.memory_kind)
            parts[device] = jax.device_put(values, place)
        jax.block_until_ready([parts[device] for device in holders])  # else all parts wait in host memory
    return jax.make_array_from_single_device_arrays(shape, sharding, [parts[device] for device in indices])
