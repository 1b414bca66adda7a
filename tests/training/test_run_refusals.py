"""What can be wrong with a run is told in a sentence that says what to do, and costs nothing that was trained."""

import json
import re
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_dataset
from left_threads import wait_for_threads
from test_run import checkpoints_in, numbers, saved

from itjax.commands import train
from itjax.errors import UserError
from itjax.parallel.sharding import make_mesh
from itjax.training import data, parameters, random_data, run_folder, state
from itjax.training.checkpoints import RunCheckpoints
from itjax.training.config import Checkpoints, TrainedParameters

SIZE = ((32, 64),)
SIZES = tiny_dataset.PRESET.networks.dit


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A dataset of six clips of one size."""
    return tiny_dataset.make_dataset(tmp_path_factory.mktemp("plain") / "data", sizes=SIZE)


def command(dataset, checkpoint, run, *flags):
    given = ["--data", dataset, "--checkpoint", checkpoint, "--run", run, "--reports.log-every", 1]
    given += ["--reports.validate-every", 0, "--reports.sample-every", 0, *flags]
    return ["tiny", *map(str, given)]


@pytest.fixture
def call(plain, checkpoint, tmp_path, capfd):
    """call("--steps", 3, data=...) -> exit status, and what was said on stderr."""

    def main(*flags, data=plain.folder, checkpoint=checkpoint, run=tmp_path / "run"):
        status = train.main(command(data, checkpoint, run, *flags))
        return status, capfd.readouterr().err

    return main


@pytest.fixture(scope="module")
def unbroken(plain, checkpoint, tmp_path_factory):
    """The folder of a run of 4 steps that nothing happened to, with a checkpoint of each. Clip 1 comes with step 2."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    every = ["--steps", 4, "--checkpoints.every", 1, "--checkpoints.keep", 4]
    assert train.main(command(plain.folder, checkpoint, folder, *every)) == 0
    return folder


def copied(dataset, folder):
    return Path(shutil.copytree(dataset.folder, folder))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--steps", "0"], "steps 0: must be at least 1"),
        (["--batch", "6", "--accumulation", "4"], "batch 6: must be a multiple of accumulation 4"),
        (["--mesh.ulysses", "3"], "mesh.ulysses 3 does not divide the 4 attention heads"),
        (["--mesh.ulysses", "4", "--mesh.context", "2"], r"4 times mesh.context 2 does not divide the 1 device\(s\)"),
        (["--motion-frames", "17"], "motion-frames 17: must be less than the 17 frames of the dataset's chunks"),
        (
            ["--references.near-seconds", "0.1"],
            r"however long its clip is: references are 0\.16 s apart \(--reference_stride 4\), "
            r"but references\.near-seconds is 0\.1\. Use --references\.near-seconds 0\.16, or prepare",
        ),
        (["--references.strategy", "M2"], "none of its 6 clips is long enough for references.strategy M2 with chunks of 17"),
        (
            ["--reports.validation-clips", "6"],
            "6 usable clips, but reports.validation-clips 6 would leave none for training",
        ),
        (["--trained.parts", "lora"], "trained.lora-rank 128: blocks/.* at most 96"),
        (["--optimizer.name", "sgd"], "optimizer.name sgd: must be one of adamw, muon"),
        (
            ["--optimizer.name", "muon", "--trained.parts", "lora"],
            "optimizer.name muon: must be adamw for trained.parts lora",
        ),
        (["--processes.count", "2"], "processes.coordinator None: must be given together with processes.count"),
    ],
)
def test_settings_that_cannot_be(call, tmp_path, flags, said):
    status, told = call(*flags)
    assert status == 2 and re.search(said, told) and told.startswith("train.py: ")
    assert not (tmp_path / "run").exists()


def test_videos_of_made_up_weights(tmp_path, capsys):
    assert train.main(["tiny-fake", "--run", str(tmp_path / "run"), "--reports.sample-every", "5"]) == 2
    assert "reports.sample-every 5: must be 0 with made-up weights" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_batch_that_does_not_divide_over_the_processes(settings):
    mesh = make_mesh(1, 1, heads=4, devices=jax.devices() * 4)  # a mesh is only names and counts here
    with pytest.raises(UserError, match=r"batch 6 in 1 part\(s\) cannot be split over the 4 data rows .* a multiple of 4"):
        data.check_batch(settings(batch=6), mesh)
    with pytest.raises(UserError, match=r"batch 4 in 2 part\(s\) .* a multiple of 8"):
        data.check_batch(settings(batch=4, accumulation=2), mesh)


def test_paths_that_are_not_given(capsys):
    assert train.main(["tiny", "--run", "here"]) == 2
    assert re.search(r"missing: --data DATASET \(made by .*\), --checkpoint DIR \(made by .*\)\n", capsys.readouterr().err)


def test_folders_that_are_not_what_they_are_given_as(call, plain, tmp_path):
    (tmp_path / "empty").mkdir()
    status, told = call(data=tmp_path / "empty")
    assert status == 2 and "empty is not a dataset" in told and "itjax.preparation VIDEOS" in told
    status, told = call(checkpoint=tmp_path / "empty")
    assert status == 2 and "empty is not a checkpoint made by convert_weights.py" in told
    short = tiny_dataset.make_dataset(tmp_path / "short", clips=3, num_frames=(9, 17), sizes=SIZE)
    status, told = call(data=short.folder)
    assert status == 2 and "none of its 3 clips is long enough for references.strategy M3 with chunks of 17 frames" in told
    other = copied(plain, tmp_path / "other")
    content = json.loads((other / "dataset.json").read_text())
    content["preset"]["networks"]["dit"]["text_len"] = 128
    (other / "dataset.json").write_text(json.dumps(content))
    status, told = call(data=other)
    assert status == 2 and "networks of different sizes" in told and "dit.text_len 128 instead of 64" in told
    status, told = call(run="/proc/run")
    assert status == 3 and "cannot write /proc/run" in told


class AmongSeveral(data.Batches):
    """As each of several processes reads."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs | {"nan_if_unreadable": True})


@pytest.mark.slow
@pytest.mark.parametrize("reading", [data.Batches, AmongSeveral])
def test_a_corrupt_record_costs_no_step(call, plain, unbroken, tmp_path, monkeypatch, reading):
    """And the run goes on from where it was once the record is whole, as if nothing had been."""
    monkeypatch.setattr(data, "Batches", reading)
    damaged = copied(plain, tmp_path / "damaged")
    path = damaged / "32x64-p1/00000.arrayrecord"
    whole = tiny_dataset.damage_second_clip(path)
    status, told = call("--steps", 4, data=damaged)
    wanted = r"00000.arrayrecord: record (\d+) cannot be read .* prepare the dataset .* The state after step 1 is saved\.\n"
    named = re.search(wanted, told)
    assert status == 2 and named and 31 <= int(named[1]) < 31 + 43, told  # records of the second clip
    assert checkpoints_in(tmp_path / "run") == [1] and saved(tmp_path / "run", 1) == saved(unbroken, 1)
    path.write_bytes(whole)
    assert call("--steps", 4, data=damaged)[0] == 0
    assert saved(tmp_path / "run", 4) == saved(unbroken, 4) and numbers(tmp_path / "run") == numbers(unbroken)


@pytest.mark.slow
def test_a_loss_that_is_no_number_keeps_the_last_good_state(call, unbroken, tmp_path, monkeypatch):
    make = random_data.random_clip

    def one_of_nan(number, *rest):
        clip = make(number, *rest)
        return clip._replace(chunks=clip.chunks * np.float16("nan")) if number == 1 else clip

    monkeypatch.setattr(random_data, "random_clip", one_of_nan)
    folder = tiny_dataset.make_dataset(tmp_path / "nan", sizes=SIZE).folder
    status, told = call("--steps", 4, data=folder)
    found = re.search(
        r"step 2: the loss is nan and the gradient norm is nan. Clips in its batch: (.*)\. The state after", told
    )
    assert status == 2 and found, told
    assert "film1.mp4[0:57]" in found[1] and len(found[1].split(", ")) == 4
    assert "state after step 1 is saved" in told and checkpoints_in(tmp_path / "run") == [1]
    assert saved(tmp_path / "run", 1) == saved(unbroken, 1) and numbers(tmp_path / "run") == numbers(unbroken)[:1]
    assert call("--steps", 4, data=folder) == (status, told)  # again, from there


@pytest.mark.slow
def test_a_full_disk_costs_the_steps_since_the_last_checkpoint_alone(call, unbroken, tmp_path, disk_of):
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    for step in (3, 4):
        shutil.rmtree(folder / f"checkpoints/{step}")
    with disk_of(20_000):
        status, told = call("--steps", 4, "--checkpoints.every", 1)
    wait_for_threads()
    assert status == 3 and told.count("\n") == 1, told
    assert "could not be written" in told and "the last complete one is of step 2. Free some space and run the same" in told
    assert checkpoints_in(folder)[-1] == 2 and saved(folder, 2) == saved(unbroken, 2)
    assert call("--steps", 4)[0] == 0
    assert saved(folder, 4) == saved(unbroken, 4) and numbers(folder) == numbers(unbroken)


@pytest.mark.slow
def test_a_run_goes_on_as_what_it_was_begun(call, plain, unbroken, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(unbroken, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    status, told = call("--steps", 5, "--batch", 2, "--optimizer.ema", 0)
    assert status == 2 and "holds a run with other settings" in told
    assert told.endswith("\n  batch: was 4, now 2\n  optimizer.ema: was 0.99, now 0.0\n")
    config = json.loads((folder / "config.json").read_text())
    del config["training"]["optimizer"]["name"]  # as of a run from before there was a choice
    (folder / "config.json").write_text(json.dumps(config))
    before[folder / "config.json"] = (folder / "config.json").read_bytes()
    status, told = call("--steps", 5, "--optimizer.name", "muon")
    assert status == 2 and told.endswith("folder:\n  optimizer.name: was adamw, now muon\n")
    with run_folder.locked(folder):
        status, told = call("--steps", 5)
    assert status == 2 and f"another process is training in {folder}: wait for it, end it, or choose another folder" in told
    status, told = call("--steps", 5, "--reports.validation-clips", 2)
    assert status == 2 and "this run was trained on different clips" in told
    assert {path: path.read_bytes() for path in before} == before
    assert call("--steps", 4, data=copied(plain, tmp_path / "moved"))[0] == 0  # the same clips elsewhere


def kept_in(folder):
    return replace(train.PRESETS["tiny"][1], run=str(folder), checkpoints=Checkpoints(keep=4))


def test_a_checkpoint_of_other_sizes_is_refused(unbroken):
    mesh = make_mesh(1, 1, heads=SIZES.num_heads, devices=jax.devices()[:1])
    shapes, _ = parameters.abstract(SIZES, TrainedParameters("lora", lora_rank=8))
    wanted = state.abstract_state(shapes, train.PRESETS["tiny"][1].optimizer, mesh)
    refused = pytest.raises(UserError, match=r"checkpoints/4 cannot be read \((.|\n)*Remove that folder")
    with RunCheckpoints(kept_in(unbroken)) as keeper, refused:
        keeper.restore(4, wanted)


def test_a_checkpoint_holds_the_position_as_it_was_when_it_was_given(tmp_path, monkeypatch):
    """Its thread may come to write it only after the run's lists have grown."""
    grown, dumps = threading.Event(), json.dumps

    def late(*args, **kwargs):
        assert threading.current_thread() is threading.main_thread() or grown.wait(30)
        return dumps(*args, **kwargs)

    monkeypatch.setattr(json, "dumps", late)
    mesh, settings = make_mesh(1, 1, heads=SIZES.num_heads, devices=jax.devices()[:1]), train.PRESETS["tiny"][1]
    shapes, _ = parameters.abstract(SIZES, settings.trained)
    begun = state.sharded_initial_state(
        jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), settings.optimizer, mesh
    )
    position = {"stream": {"next": [1]}, "unreported": [1]}
    with RunCheckpoints(kept_in(tmp_path)) as keeper:
        keeper.save(1, begun, position)
        position["unreported"].append(2)
        position["stream"]["next"][0] = 2
        grown.set()
        keeper.wait()
        _, found = keeper.restore(1, state.abstract_state(shapes, settings.optimizer, mesh))
    assert found == {"stream": {"next": [1]}, "unreported": [1]}


@pytest.mark.slow
def test_of_a_damaged_checkpoint_the_one_before_it_is_left(call, unbroken, tmp_path, monkeypatch, caplog):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    last = folder / "checkpoints/4"
    damaged = [path for path in last.rglob("*") if path.is_file() and path.parent.name == "d"]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:100])
    status, told = call("--steps", 4)
    assert damaged and status == 2
    assert f"{last} cannot be read" in told and "Remove that folder to continue from the checkpoint before it" in told
    shutil.rmtree(last)
    assert call("--steps", 4)[0] == 0
    assert saved(folder, 4) == saved(unbroken, 4) and numbers(folder) == numbers(unbroken)
    assert not unraisable and not caplog.records  # what would be pages around the sentence, also while the next run goes on
