"""The stream of batches depends on the seed alone, shows each clip once an epoch, and goes on where it stopped."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_dataset

from itjax.configs.training import TINY
from itjax.errors import UserError
from itjax.parallel.sharding import make_mesh
from itjax.records import Records
from itjax.training import data, examples


def batches_of(dataset, settings, bucket=0, chosen=(0, 2, 3, 5), size=1, group=0, groups=1):
    records = Records(dataset, dataset.buckets[bucket])
    return data.Batches(records, chosen, examples.example_sampler(dataset, settings, bucket), size, group, groups)


def names(batches, numbers):
    return [name for number in numbers for name in batches[number][1]]


def test_each_chosen_clip_comes_once_an_epoch_in_an_order_of_its_own(dataset):
    batches = batches_of(dataset, TINY)
    epochs = [names(batches, range(first, first + 4)) for first in range(0, 80, 4)]
    assert all(Counter(epoch) == Counter(epochs[0]) and len(set(epoch)) == 4 for epoch in epochs)
    assert {name[:5] for name in epochs[0]} == {"film0", "film2", "film3", "film5"}
    assert len(set(map(tuple, epochs))) > 10  # of 24 orders, in 20 epochs


def test_an_example_is_the_same_whenever_it_is_read(dataset):
    forward = batches_of(dataset, TINY)
    at = [50, 3, 49, 3, 17]
    for number in at:
        batch, shown = batches_of(dataset, TINY)[number]
        again, same = forward[number]
        assert shown == same and all(np.array_equal(a, b) for a, b in zip(batch, again, strict=True) if a is not None)
    other = batches_of(dataset, replace(TINY, seed=TINY.seed + 1))
    assert names(other, range(40)) != names(forward, range(40))
    assert names(batches_of(dataset, TINY, bucket=1), range(40)) != names(forward, range(40))


@pytest.fixture
def stream(dataset):
    mesh = make_mesh(1, 1, heads=4)
    split = examples.split(dataset, TINY.references, 1)
    return lambda: data.Stream(dataset, TINY, split.train, mesh)


def test_a_stream_goes_on_from_its_position(stream):
    unbroken = stream()
    read = [next(unbroken) for _ in range(9)]
    for done in (0, 1, 5):
        stopped = stream()
        for _ in range(done):
            next(stopped)
        resumed = stream()
        resumed.restore(stopped.state())
        for batch, shown in read[done:]:
            again, same = next(resumed)
            assert shown == same and np.array_equal(batch.latents, again.latents)
            assert np.array_equal(batch.identity, again.identity)


@pytest.mark.parametrize("groups", [2, 4])
def test_groups_of_processes_read_the_parts_of_one_batch(dataset, groups):
    alone = batches_of(dataset, TINY, size=4)
    parts = [batches_of(dataset, TINY, size=4, group=group, groups=groups) for group in range(groups)]
    for number in (0, 1, 7):
        batch, shown = alone[number]
        theirs = [part[number] for part in parts]
        found = [pair for of, by in theirs for pair in zip(of.identity.tolist(), by, strict=True)]
        assert sorted(found) == sorted(zip(batch.identity.tolist(), shown, strict=True))


def test_what_one_of_several_processes_cannot_read_is_nan_and_says_why(dataset, tmp_path):
    folder = Path(shutil.copytree(dataset.folder, tmp_path / "damaged"))
    path = folder / dataset.buckets[0].shards[0].path
    whole = tiny_dataset.damage_second_clip(path)
    damaged = replace(dataset, folder=folder)
    told = pytest.raises(UserError, match=r"record \d+ cannot be read")
    make = lambda nan_if_unreadable: data.Batches(
        Records(damaged, damaged.buckets[0]),
        (0, 1),
        examples.example_sampler(damaged, TINY, 0),
        8,
        nan_if_unreadable=nan_if_unreadable,
    )
    with told:
        make(False)[0]
    batch, shown = make(True)[0]
    nan = np.isnan(batch.latents).all((1, 2, 3, 4))
    unreadable = [name.startswith(data.UNREADABLE) and "00000.arrayrecord: record" in name for name in shown]
    assert nan.tolist() == unreadable and 0 < nan.sum() < 8 and np.isfinite(batch.latents[~nan]).all()
    path.write_bytes(bytes(len(whole)))
    with told:
        make(True)[0]
