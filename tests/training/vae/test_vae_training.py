"""The training of the small VAE, on networks and pictures that are tinier still."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from PIL import Image

from itjax.config import VaeSizes
from itjax.errors import UserError
from itjax.models import vae
from itjax.progress import SILENT
from itjax.synthetic import clip as drawn
from itjax.synthetic import scene, workers
from itjax.synthetic.mouth import rest_track
from itjax.synthetic.source import DrawnClips
from itjax.training import curve
from itjax.training.run import End
from itjax.training.small_loop import Plan
from itjax.training.vae import __main__ as vae_training
from itjax.training.vae import fold, frames, measure, objective, refine, result, start, train
from itjax.training.vae.frames import DrawnFrames
from itjax.training.vae.objective import reconstruction_loss
from itjax.training.vae.recipe import Recipe
from itjax.weights import mapping, store
from itjax.weights.sources import preset_of
from itjax.weights.tables.vae import table

TINY = VaeSizes(dim=8, multipliers=(1, 2), num_res_blocks=1, time_downsample=(True,))
RECIPE = Recipe(steps=5, image_steps=2, images=2, clips=1, clip_frames=5)
SETTINGS = train.Training(RECIPE, TINY, size=32, seed=5)
REFINED = replace(
    SETTINGS, recipe=Recipe(steps=4, image_steps=0, clips=1, clip_frames=11, learning_rate=1e-4), start="known"
)
encode_whole = jax.jit(vae.encode_whole, static_argnums=2)
decode_whole = jax.jit(vae.decode_whole, static_argnums=2)


@pytest.fixture(scope="module")
def initial():
    return start.initial_parameters(TINY, 0)


@pytest.fixture(scope="module")
def random_parameters(initial):
    """No weight is zero, so that each counts in a comparison."""
    rng = np.random.default_rng(1)  # not JAX's, which would compile a program for each shape
    return jax.tree.map(lambda leaf: np.asarray(leaf) + 0.1 * rng.standard_normal(leaf.shape, np.float32), initial)


@pytest.fixture(scope="module")
def video():
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, 5, 8, 8, 3)), jnp.float32)


@pytest.fixture(scope="module")
def thread():
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def few_frames():
    """Short clips, and few of them; one process draws."""
    values = {
        train: {"VALIDATION_CLIPS": 1, "TEST_CLIPS": 1, "STATISTICS_CLIPS": 2},
        measure: {"FRAMES": 13},
        frames: {"SECONDS": 1.0, "FIRST": 2, "POOL": 3, "AHEAD": 1, "STEPS_PER_CLIP": 2},
        workers: {"MOST": 1},
    }
    with pytest.MonkeyPatch.context() as patch:
        for module, names in values.items():
            for name, value in names.items():
                patch.setattr(module, name, value)
        yield


@pytest.fixture(scope="module")
def trained(few_frames, tmp_path_factory):
    """The folder of a whole run, whose clips were drawn by a process."""
    folder = tmp_path_factory.mktemp("vae") / "run"
    assert train.train(SETTINGS, Plan(folder, RECIPE.steps, log_every=2), SILENT) is End.DONE
    return folder


def test_all_frames_at_once_are_the_recurrence(random_parameters, video):
    def whole(parameters):
        mean, _ = vae.encode_whole(parameters, video, TINY)
        normalised = (mean - jnp.asarray(vae.LATENT_MEAN)) / jnp.asarray(vae.LATENT_STD)
        return normalised, jnp.clip(vae.decode_whole(parameters, mean, TINY), -1, 1)

    def scanned(parameters):
        latents = vae.encode(parameters, video, TINY)
        return latents, vae.decode(parameters, latents, TINY)

    # outputs, and their derivatives by all parameters at once, in a direction
    direction = jax.tree.map(
        lambda leaf: np.cos(17 * np.arange(leaf.size, dtype=np.float32)).reshape(leaf.shape), random_parameters
    )
    both = lambda function: jax.jit(lambda at: jax.jvp(function, (at,), (direction,)))(random_parameters)
    (outputs, derivatives), (expected, expected_derivatives) = both(whole), both(scanned)
    # float32; the order of sums differs
    chex.assert_trees_all_close(outputs, expected, atol=1e-5)
    for made, true in zip(derivatives, expected_derivatives, strict=True):
        chex.assert_trees_all_close(made, true, atol=1e-5 * float(jnp.abs(true).max()))


def test_the_initial_network_carries_colours(initial):
    leaves = flatten_dict(initial, sep="/")
    ends = [leaf for path, leaf in leaves.items() if path.endswith(("conv2/conv/kernel", "proj/kernel"))]
    assert len(ends) == 12 and not any(map(jnp.any, ends))
    older = [leaf[:-1] for path, leaf in leaves.items() if path.endswith("/conv/kernel")]
    assert not any(jnp.any(leaf) for leaf in older if leaf.ndim == 5)
    colors = np.random.default_rng(0).uniform(-1, 1, (6, 1, 1, 1, 3)).astype(np.float32)
    plain = jnp.broadcast_to(colors, (6, 5, 16, 16, 3))
    mean, log_variance = encode_whole(initial, plain, TINY)
    middle = np.asarray(decode_whole(initial, mean, TINY))[:, :, 4:-4, 4:-4]
    assert float(jnp.max(log_variance)) < -4
    # within a picture and over its frames the colour is the same, and over pictures it follows the truth
    assert middle.std((1, 2, 3)).max() < 1e-3
    assert np.corrcoef(middle[:, -1, 0, 0].ravel(), colors.ravel())[0, 1] > 0.98
    assert np.abs(middle[:, -1, 0, 0] - colors[:, 0, 0, 0]).mean() < 0.2


def test_folding_standardises_latents_and_keeps_pictures(random_parameters):
    videos = [np.random.default_rng(n).integers(0, 256, (5, 16, 16, 3), np.uint8) for n in range(4)]
    folded = fold.folded(random_parameters, *fold.latent_statistics(random_parameters, videos, TINY))
    pixels = jnp.asarray(np.stack(videos)) / 127.5 - 1
    latents = jax.jit(vae.encode, static_argnums=2)(folded, pixels, TINY)
    chex.assert_trees_all_close(np.mean(latents, (0, 1, 2, 3)), np.zeros(16), atol=1e-4)
    chex.assert_trees_all_close(np.std(latents, (0, 1, 2, 3)), np.ones(16), atol=1e-4)
    before, after = (encode_whole(each, pixels, TINY) for each in (random_parameters, folded))
    made = [decode_whole(p, mean, TINY) for p, (mean, _) in ((random_parameters, before), (folded, after))]
    chex.assert_trees_all_close(made[1], made[0], atol=1e-4)
    # the noise of sampled latents means the same, too
    ratio = [np.exp(log_variance) / np.var(mean, (0, 1, 2, 3)) for mean, log_variance in (before, after)]
    chex.assert_trees_all_close(ratio[1], ratio[0], rtol=1e-3)


def test_a_mouth_weighs_as_much_as_it_is_said(video):
    weights, mouth = jnp.ones(video.shape[:-1]), jnp.zeros(video.shape[:-1]).at[:, :, 4:6, 4:6].set(1)
    far, near = video.at[:, :, 1, 1].add(1), video.at[:, :, 4, 4].add(1)
    assert reconstruction_loss(video, video, weights) < 1e-6
    equal = [float(reconstruction_loss(made, video, weights)) for made in (far, near)]
    assert equal[0] == pytest.approx(equal[1], rel=1e-5)
    unequal = [float(reconstruction_loss(made, video, weights + 9 * mouth)) for made in (far, near)]
    assert unequal[1] > 4 * unequal[0]


def test_a_mouths_region_is_that_of_the_drawing():
    clip = DrawnClips(2, 1, 0.4, (32, 32))[0]
    region = objective.region(jnp.asarray(clip["mouth_boxes"]), 32, 32)[0]
    assert clip["region"].any() and np.array_equal(region, clip["region"])
    assert not objective.region(jnp.asarray([[[-9.0, -9.0, -5.0, -5.0]]]), 32, 32).any()


def test_the_average_is_that_of_the_weights():
    average = {"w": jnp.zeros(())}
    for step in range(300):
        average = objective.moving_average(average, {"w": jnp.float32(step % 2)}, jnp.int32(step), 0.98)
    assert average["w"] == pytest.approx(0.5, abs=0.01)


def test_batches_are_those_of_the_step_in_any_order(thread, few_frames):
    assert frames.POOL == 3
    forward = DrawnFrames(1, 32, thread)
    batches = [forward.batch(step, 2, 5) for step in range(7)]
    later = DrawnFrames(1, 32, thread).batch(6, 2, 5)
    chex.assert_trees_all_equal(later, batches[6])
    assert batches[0].video.tobytes() != batches[1].video.tobytes()
    # clips 2 to 4 are the pool of step 6; two of the batch are different ones
    starts = {number: clip.result().video[0].tobytes() for number, clip in forward._pool.items()}
    assert sorted(starts) == [2, 3, 4, 5] and len(set(starts.values())) == 4
    assert later.video[0].tobytes() != later.video[1].tobytes()
    assert [len(list(forward.newest(6, count, 5))) for count in (1, 9)] == [1, 3]


def test_the_reader_reads_mouths_and_only_mouths(thread):
    clips = measure.held_out(1, 64, "validation", 49, thread)
    assert np.corrcoef(clips.readers[0](clips.video[0]), clips.jaw[0])[0, 1] > 0.97
    clip = drawn.make((measure.SEED, 0), 49 / 25, 64, 64, split="validation")
    shut = np.stack([picture for picture, _ in scene.frames(clip.scene, (rest_track(49),), 64, 64)])
    assert np.abs(clips.readers[0](shut)).max() < 0.15  # although head and camera move


@pytest.mark.slow
def test_a_resumed_run_is_bit_equal(trained, thread, tmp_path, monkeypatch):
    plan = Plan(tmp_path / "parts", RECIPE.steps, log_every=2)
    draw = DrawnFrames.batch

    def stopped(self, step, *shape):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(self, step, *shape)

    monkeypatch.setattr(train, "processes", lambda: nullcontext(thread))  # the whole run's clips are from a process
    with monkeypatch.context() as patch:
        patch.setattr(DrawnFrames, "batch", stopped)
        assert train.train(SETTINGS, plan, SILENT) is End.PREEMPTED
    assert not (plan.out / "result").exists()
    with pytest.raises(UserError, match="seed: was 5, now 4"):
        train.train(replace(SETTINGS, seed=4), plan, SILENT)
    assert train.train(SETTINGS, plan, SILENT) is End.DONE
    logs = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (trained, plan.out)]
    known = lambda line: {name: value for name, value in line.items() if "seconds" not in name and "waiting" not in name}
    assert [known(line) for line in logs[1]] == [known(line) for line in logs[0]]
    chex.assert_trees_all_equal(_weights(plan.out), _weights(trained))


def _weights(run):
    stored = store.open_checkpoint(run / "result" / result.WEIGHTS).tensors
    return {path.removeprefix("vae/"): tensor.read(()) for path, tensor in stored.items()}


@pytest.mark.slow
def test_steps_on_the_same_pictures_lower_the_loss(trained, thread):
    step = objective.compile_step(TINY, RECIPE, SETTINGS.seed, objective.loss)
    # bound to its device, as those of a run are: the same program
    state = jax.device_put(objective.initial_state(start.initial_parameters(TINY, 3), RECIPE), jax.devices()[0])
    losses = []
    batch = DrawnFrames(SETTINGS.seed, SETTINGS.size, thread).batch(0, 2, 1)
    for _ in range(10):
        state, metrics = step(state, *batch, jnp.float32(1))
        losses.append(float(metrics["reconstruction"]))
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_a_training_leaves_weights_a_card_and_pictures(trained, thread, monkeypatch):
    folder, arrays = trained / "result", _weights(trained)
    expected = mapping.torch_shapes(table(TINY), vae.abstract_parameters(TINY))
    shapes = {path: leaf.shape for path, leaf in flatten_dict(vae.abstract_parameters(TINY), sep="/").items()}
    assert {path: array.shape for path, array in arrays.items()} == shapes and len(arrays) == len(expected)
    card = json.loads((folder / result.CARD).read_text())
    assert card["passed"] is False and card["training"]["seed"] == 5 and card["vae"]["dim"] == 8
    # five steps from the start, all of a face is still grey: but it is a picture
    assert 8 < card["figures"]["psnr"] < 25
    assert Image.open(folder / result.PICTURE).size == (32 * 8 * 2, 32 * 2 * 2)
    assert Image.open(trained / curve.FILE).size[0] > 300
    monkeypatch.setattr(train, "processes", lambda: nullcontext(thread))
    assert train.train(SETTINGS, Plan(trained, RECIPE.steps), SILENT) is End.DONE  # nothing is left to do


@pytest.mark.slow
def test_a_refinement_keeps_latents_and_learns_to_keep_pictures(trained, thread, monkeypatch, tmp_path):
    # latents that are far from standard: folding would show
    stored = start.stored_parameters(trained)
    assert stored.sizes == TINY and stored.identity
    chex.assert_trees_all_equal(flatten_dict(stored.parameters, sep="/"), _weights(trained))
    known = fold.folded(stored.parameters, np.zeros(16), np.full(16, 10.0))
    monkeypatch.setattr(train, "processes", lambda: nullcontext(thread))
    plan = Plan(tmp_path / "refined", REFINED.recipe.steps, log_every=1)
    assert train.train(REFINED, plan, SILENT, known) is End.DONE
    refined = unflatten_dict(_weights(plan.out), sep="/")
    batch = DrawnFrames(8, SETTINGS.size, thread).batch(0, 1, 11)
    video = batch.video / np.float32(127.5) - 1
    latents = [encode_whole(parameters, video, TINY)[0] for parameters in (known, refined)]
    assert 0 < np.abs(latents[1] - latents[0]).mean() < 0.05 * np.std(latents[0])
    card = json.loads((plan.out / "result" / result.CARD).read_text())
    assert card["training"]["start"] == "known" and card["figures"]["again"] > 0
    with pytest.raises(UserError, match="start: was known, now other"):
        train.train(replace(REFINED, start="other"), plan, SILENT, known)
    step = objective.compile_step(TINY, REFINED.recipe, REFINED.seed, refine.loss)  # the run's program
    state = jax.device_put(objective.initial_state(jax.tree.map(jnp.copy, known), REFINED.recipe), jax.devices()[0])
    metrics = []
    for _ in range(12):
        state, values = step(state, *batch, jnp.float32(25), known)
        metrics.append(values)
    assert metrics[-1]["again"] < 0.8 * metrics[0]["again"] and metrics[-1]["loss"] < metrics[0]["loss"]


@pytest.mark.parametrize(
    ("flag", "wrong"),
    [
        ("--dim 4", {"sizes": replace(TINY, dim=4)}),
        ("--size 31", {"size": 31}),
        ("--clip_frames 6", {"recipe": replace(RECIPE, clip_frames=6)}),
        ("--learning_rate", {"recipe": replace(RECIPE, learning_rate=0.0)}),
        ("--image_steps", {"recipe": replace(RECIPE, image_steps=-1)}),
        ("--start.*--clip_frames 11 or more", {"start": "known", "recipe": replace(REFINED.recipe, clip_frames=9)}),
        ("--start.*no --image_steps", {"start": "known", "recipe": replace(REFINED.recipe, image_steps=1)}),
    ],
)
def test_wrong_settings_are_refused(flag, wrong):
    with pytest.raises(UserError, match=flag):
        replace(SETTINGS, **wrong)


def test_the_command_refines_the_vae_of_a_checkpoint(checkpoint, tmp_path, monkeypatch, capsys):
    out, begun = ["--out", str(tmp_path / "run"), "--start"], []
    monkeypatch.setattr(train, "train", lambda *given: begun.append(given) or End.DONE)
    assert vae_training.main([*out, str(checkpoint), "--steps", "7", "--seed", "3"]) == 0
    training, plan, _, parameters = begun[0]
    assert training.recipe.steps == plan.steps == 7 and training.recipe.image_steps == 0 and training.seed == 3
    assert training.sizes == preset_of(checkpoint).networks.vae and training.start
    chex.assert_trees_all_equal_shapes(parameters, vae.abstract_parameters(training.sizes))
    assert vae_training.main([*out, str(checkpoint), "--dim", "8"]) == 2 and "leave it out" in capsys.readouterr().err
    assert vae_training.main([*out, str(tmp_path)]) == 2 and str(tmp_path) in capsys.readouterr().err
    assert len(begun) == 1
