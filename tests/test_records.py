"""Records: what is written is read; the layout's arithmetic; damage is named with file and record."""

import json
import os
import pickle
import re
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grain
import numpy as np
import pytest
import tiny_dataset

from itjax import records
from itjax.errors import OutputError, UserError
from itjax.records import Layout, Records, Shard, chunk_starts, reference_frames, shards
from itjax.training import random_data

ROOT = Path(__file__).parents[1]


@pytest.fixture
def dataset(tmp_path):
    return tiny_dataset.make_dataset(tmp_path / "data")


def whole(clip):
    """With all its parts read."""
    return clip._replace(**{name: np.asarray(x) for name, x in clip._asdict().items() if isinstance(x, records.LazyRows)})


def again(written):
    """The clip of records."""
    return records.from_records(written[0], lambda number, nbytes: written[number])


def assert_equal(clip, other):
    for name, ours, theirs in zip(clip._fields, clip, whole(other), strict=True):
        if isinstance(theirs, np.ndarray):
            assert ours.dtype == theirs.dtype, name
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
        else:
            assert ours == theirs, name


@pytest.mark.parametrize("persons", [1, 2])
@pytest.mark.parametrize("layout", [tiny_dataset.LAYOUT, replace(tiny_dataset.LAYOUT, ends=False, regions=False)])
def test_a_clip_comes_back_as_it_was(persons, layout):
    clip = tiny_dataset.random_clip(3, (32, 64), 57, layout, persons=persons)
    clip = clip._replace(name='ä "film".mp4[0:57]')
    written = records.to_records(clip)
    assert len(written) == records.record_count(57, layout)
    assert_equal(again(written), clip)


def test_a_part_is_read_alone():
    clip = tiny_dataset.random_clip(3, (32, 64), 57)
    written, read = records.to_records(clip), []
    lazy = records.from_records(written[0], lambda number, nbytes: read.append(number) or written[number])
    assert len(lazy.chunks) == 6 and lazy.chunks.shape == clip.chunks.shape and not read
    np.testing.assert_array_equal(lazy.chunks[np.int64(2)], clip.chunks[2])
    np.testing.assert_array_equal(lazy.references[-1], clip.references[-1])
    assert read == [3, 1 + 6 + 14]
    np.testing.assert_array_equal(np.asarray(lazy.ends), clip.ends)
    with pytest.raises(IndexError):
        lazy.chunks[6]
    sizes = [len(data) for data in written]
    assert sizes[0] + sizes[3] + 2 * max(sizes[7:]) < sum(sizes) / 4


def test_the_same_clip_gives_the_same_bytes_in_every_process():
    code = (
        "import hashlib, tiny_dataset; from itjax import records\n"
        'print(hashlib.sha256(b"".join(records.to_records(tiny_dataset.random_clip(0, (32, 64), 41)))).hexdigest())'
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    seen = {subprocess.check_output([sys.executable, "-c", code], env=environment, cwd=ROOT) for _ in range(4)}
    assert len(seen) == 1


def test_a_dataset_comes_back_as_it_was(dataset):
    opened = records.open_dataset(dataset.folder)
    assert opened == dataset
    assert len(opened.buckets) == 2 and all(len(bucket.shards) == 2 for bucket in opened.buckets)
    for bucket in opened.buckets:
        read = Records(opened, bucket)
        assert [clip.num_frames for clip in read] == list(bucket.num_frames)
        for number, clip in enumerate(read):
            expected = tiny_dataset.random_clip(number, (bucket.height, bucket.width), bucket.num_frames[number])
            assert_equal(clip, expected)
    prompts = records.null_prompts(opened)
    assert prompts.dtype == np.float32 and not prompts[0, 1:].any() and prompts[0, 0].any()


def test_grain_reads_records_in_any_order_and_in_other_processes(dataset):
    source = Records(dataset, dataset.buckets[0])
    source[2]  # an open file must not hinder the copy
    copy = pickle.loads(pickle.dumps(source))
    assert_equal(copy[4], source[4])
    names = [clip.name for clip in grain.MapDataset.source(copy).shuffle(seed=1).repeat(2)]
    assert len(names) == 12 and set(names) == {clip.name for clip in source} and names[:6] != names[6:]


def test_more_shards_than_a_process_may_open(tmp_path):
    number = shards.MAX_OPEN + 30
    layout, clip = random_data.LAYOUT, records.to_records(tiny_dataset.random_clip(0, (32, 64), 17, random_data.LAYOUT))
    folder = tmp_path / "data"
    made = tiny_dataset.make_dataset(folder, sizes=((32, 64),), layout=layout, clips=1, num_frames=(17,))
    names = [f"32x64-p1/{i:05d}.arrayrecord" for i in range(number)]
    for name in names:
        records.write_shard(folder / name, [clip])
    bucket = replace(made.buckets[0], shards=tuple(Shard(name, (17,)) for name in names))
    read = Records(made, bucket)
    open_files = lambda: os.listdir("/proc/self/fd")
    before = len(open_files())
    with ThreadPoolExecutor(4) as threads:  # each closes files that the others have opened
        whole_clips = list(threads.map(lambda i: whole(read[i % number]), range(3 * number)))
    assert len(whole_clips) == 3 * number and all(clip.num_frames == 17 for clip in whole_clips)
    assert len(open_files()) <= before + shards.MAX_OPEN
    shards._opened.cache_clear()
    assert len(open_files()) <= before


def test_a_limit_of_open_files_blames_no_shard(dataset):
    read, limits = Records(dataset, dataset.buckets[0]), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(
            UserError, match=r"00000\.arrayrecord cannot be opened .*Too many open files.*`ulimit -n"
        ) as error:
            read[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "Delete" not in str(error.value) and read[0].num_frames == 41


@pytest.mark.parametrize("layout", [Layout(), Layout(17, 4, 8), Layout(5, 1, 3), Layout(9, 8, 16)])
@pytest.mark.parametrize("extra", [0, 1, 7, 40, 419])
def test_every_chunk_lies_whole_in_the_clip_with_its_first_and_last_frame_as_references(layout, extra):
    num_frames = layout.frame_num + extra
    starts, references = chunk_starts(num_frames, layout), reference_frames(num_frames, layout)
    assert starts[0] == 0 and starts[-1] + layout.frame_num <= num_frames
    assert starts[-1] + layout.chunk_stride + layout.frame_num > num_frames  # no room for one more
    assert references[-1] < num_frames <= references[-1] + layout.reference_stride
    ends = np.concatenate([starts, starts + layout.frame_num - 1])
    assert set(ends.tolist()) <= set(references.tolist())


def test_a_clip_shorter_than_a_chunk_holds_none():
    assert len(chunk_starts(80, Layout())) == 0 and len(chunk_starts(81, Layout())) == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [((82, 20, 40), "4n+1"), ((1, 1, 1), "4n+1"), ((81, 20, 30), "chunk_stride 30"), ((81, 0, 40), "chunk_stride 40"),
     ((81, 20, 0), "chunk_stride 0"), ((81, 32, 64), "frame_num - 1 = 80")],
)  # fmt: skip
def test_layouts_that_do_not_fit_are_refused(values, said):
    with pytest.raises(UserError) as error:
        Layout(*values)
    assert said in str(error.value)


def test_a_corrupt_record_is_named_and_the_others_still_read(dataset):
    path = dataset.folder / dataset.buckets[0].shards[0].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF  # within the second of three clips
    path.write_bytes(content)
    read = Records(dataset, dataset.buckets[0])
    first = records.record_count(41, dataset.layout)
    with pytest.raises(UserError) as error:
        whole(read[1])
    named = re.search(r"record (\d+) cannot be read", str(error.value))
    assert str(path) in str(error.value) and "Delete this file" in str(error.value)
    assert first <= int(named[1]) < first + records.record_count(57, dataset.layout)
    assert all(whole(read[number]).name for number in (0, 2, 5))


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_truncated_shard_is_named(dataset, kept):
    path = dataset.folder / dataset.buckets[0].shards[1].path
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    read = Records(dataset, dataset.buckets[0])
    with pytest.raises(UserError, match=f"{path.name}: record {35 + 49} "):
        whole(read[5])
    assert whole(read[2]).name


def test_a_shard_with_fewer_records_than_listed_is_named(dataset):
    path = dataset.folder / dataset.buckets[0].shards[0].path
    first = whole(Records(dataset, dataset.buckets[0])[0])
    records.write_shard(path, [records.to_records(first)])
    with pytest.raises(UserError, match=f"record {35 + 49} "):
        Records(dataset, dataset.buckets[0])[2]


def test_a_part_of_another_size_is_named(dataset):
    path = dataset.folder / dataset.buckets[0].shards[0].path
    made = records.to_records(whole(Records(dataset, dataset.buckets[0])[0]))
    made[2] = made[2][:-2]
    records.write_shard(path, [made])
    with pytest.raises(UserError, match=rf"record 2 cannot be read \({len(made[2])} bytes instead of {len(made[1])}\)"):
        Records(dataset, dataset.buckets[0])[0].chunks[1]


@pytest.mark.parametrize("data", [b"", b"12345678", b"\2\0\0\0\0\0\0\0{}", b"\2\0\0\0\0\0\0\0[]", b"\xff" * 64])
def test_what_is_no_clip_is_no_record(data):
    with pytest.raises(ValueError, match="not a record of a clip"):
        again([data])


def test_a_record_with_other_fields_is_no_clip():
    clip = tiny_dataset.random_clip(0, (32, 64), 41)
    data, *parts = records.to_records(clip)
    with pytest.raises(ValueError, match="not a record of a clip"):
        again([data.replace(b'"speech"', b'"sqeech"'), *parts])


def test_a_folder_that_is_no_dataset_is_named(tmp_path, dataset):
    with pytest.raises(UserError, match=r"elsewhere is not a dataset.*itjax\.preparation"):
        records.open_dataset(tmp_path / "elsewhere")
    (dataset.folder / dataset.buckets[1].shards[0].path).unlink()
    with pytest.raises(UserError, match=r"00000\.arrayrecord is missing"):
        records.open_dataset(dataset.folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c | {"version": 99}, "version 99"),
        (lambda c: {k: v for k, v in c.items() if k != "layout"}, "damaged"),
        (lambda c: c | {"buckets": [{"height": 32}]}, "damaged"),
        (lambda c: c | {"preset": []}, "damaged"),
        (lambda c: [c], "damaged"),
    ],
)
def test_a_damaged_dataset_json_is_named(dataset, change, said):
    path = dataset.folder / "dataset.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=said):
        records.open_dataset(dataset.folder)
    for content in (path.read_text()[:40], "[" * 100_000):
        path.write_text(content)
        with pytest.raises(UserError, match=r"dataset\.json: .*(cannot be read|nested)"):
            records.open_dataset(dataset.folder)


def test_damaged_prompts_are_named(dataset):
    path = dataset.folder / records.PROMPTS_FILE
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"prompts\.safetensors cannot be read"):
        records.null_prompts(dataset)
    records.write_null_prompts(dataset.folder, np.zeros((2, 3, 4), np.float32))
    with pytest.raises(UserError, match=r"\[2, 3, 4\].*\[2, 64, 48\]"):
        records.null_prompts(dataset)


def test_a_full_disk_leaves_the_older_shard_and_nothing_else(tmp_path, disk_of):
    data = [records.to_records(tiny_dataset.random_clip(i, (32, 64), 57)) for i in range(4)]
    records.write_shard(tmp_path / "a", data)
    before = (tmp_path / "a").read_bytes()
    with disk_of(100_000), pytest.raises(OutputError, match="cannot write"):
        records.write_shard(tmp_path / "a", data)
    assert (tmp_path / "a").read_bytes() == before and os.listdir(tmp_path) == ["a"]


def test_records_of_two_persons_are_a_bucket_of_their_own(tmp_path):
    dataset = tiny_dataset.make_dataset(tmp_path / "data", layout=random_data.LAYOUT, persons=2, clips=4)
    assert [bucket.name for bucket in dataset.buckets] == ["32x64-p2", "48x48-p2"]
    clip = Records(dataset, dataset.buckets[0])[0]
    assert clip.masks.shape == (3, 8) and clip.speech.shape[0] == 2 and clip.ends is None
