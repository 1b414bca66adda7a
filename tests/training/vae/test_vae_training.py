"""The training of the small VAE, on networks and pictures that are tinier still."""

import json
import os
import signal
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

from itjax.config import VaeSizes
from itjax.errors import UserError
from itjax.models import vae
from itjax.progress import SILENT
from itjax.synthetic import clip as drawn
from itjax.synthetic import scene
from itjax.synthetic.mouth import rest_track
from itjax.training import curve, small_loop
from itjax.training.run import End
from itjax.training.small_loop import Plan
from itjax.training.vae import fold, frames, measure, result, start, train
from itjax.training.vae.frames import DrawnFrames
from itjax.training.vae.objective import Recipe, reconstruction_loss
from itjax.weights import mapping, store
from itjax.weights.tables.vae import table

TINY = VaeSizes(dim=8, multipliers=(1, 2), num_res_blocks=1, time_downsample=(True,))
RECIPE = Recipe(steps=5, image_steps=2, images=2, clips=1, clip_frames=5)
SETTINGS = train.Training(RECIPE, TINY, size=32, seed=3)
encode_whole = jax.jit(vae.encode_whole, static_argnums=2)
decode_whole = jax.jit(vae.decode_whole, static_argnums=2)


@pytest.fixture(scope="module")
def initial():
    return start.initial_parameters(TINY, 0)


@pytest.fixture(scope="module")
def random_parameters(initial):
    """No weight is zero, so that each counts in a comparison."""
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(initial))))
    return jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), initial)


@pytest.fixture(scope="module")
def video():
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, 5, 8, 8, 3)), jnp.float32)


@pytest.fixture(scope="module")
def work():
    with pytest.MonkeyPatch.context() as patch, DrawnFrames(SETTINGS.seed, SETTINGS.size) as drawing:
        patch.setattr(frames, "CLIPS", 2)
        yield train._Work(SETTINGS, drawing)


def test_all_frames_at_once_are_the_recurrence(random_parameters, video):
    def whole(parameters, video):
        mean, _ = vae.encode_whole(parameters, video, TINY)
        return (mean - jnp.asarray(vae.LATENT_MEAN)) / jnp.asarray(vae.LATENT_STD), jnp.clip(
            vae.decode_whole(parameters, mean, TINY), -1, 1
        )

    def scanned(parameters, video):
        latents = vae.encode(parameters, video, TINY)
        return latents, vae.decode(parameters, latents, TINY)

    weigh = lambda outputs: sum(jnp.sum(jnp.sin(17 * jnp.arange(x.size)).reshape(x.shape) * x) for x in outputs)

    def outputs_and_gradients(function):
        def weighed(parameters, video):
            outputs = function(parameters, video)
            return weigh(outputs), outputs

        return jax.jit(jax.grad(weighed, has_aux=True))(random_parameters, video)

    (gradients, outputs), (expected_gradients, expected) = outputs_and_gradients(whole), outputs_and_gradients(scanned)
    # float32; the order of sums differs
    chex.assert_trees_all_close(outputs, expected, atol=1e-5)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected_gradients))
    chex.assert_trees_all_close(gradients, expected_gradients, atol=1e-5 * scale)


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
    videos = [np.random.default_rng(n).integers(0, 256, (2, 5, 16, 16, 3), np.uint8) for n in range(2)]
    folded = fold.folded(random_parameters, *fold.latent_statistics(random_parameters, videos, TINY))
    pixels = jnp.asarray(np.concatenate(videos)) / 127.5 - 1
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


def test_the_reader_reads_mouths_and_only_mouths():
    clips = measure.held_out(1, 64, "validation", 49)
    assert np.corrcoef(clips.readers[0](clips.video[0]), clips.jaw[0])[0, 1] > 0.97
    clip = drawn.make((measure.SEED, 0), 49 / 25, 64, 64, split="validation")
    shut = np.stack([picture for picture, _ in scene.frames(clip.scene, (rest_track(49),), 64, 64)])
    assert np.abs(clips.readers[0](shut)).max() < 0.15  # although head and camera move


@pytest.mark.slow
def test_a_resumed_run_is_bit_equal(work, tmp_path):
    losses = []

    def step(state, done, stop_after=None):
        state, metrics = work.step(state, done)
        losses.append(metrics["loss"])
        if done + 1 == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return state, metrics

    run = lambda name, **kinds: small_loop.run(
        Plan(tmp_path / name, RECIPE.steps, log_every=2), {"a": 1}, work.initial, partial(step, **kinds), lambda state: {},
        SILENT,
    )  # fmt: skip
    whole = run("whole")
    assert whole.end is End.DONE
    assert run("parts", stop_after=3).end is End.PREEMPTED
    parts = run("parts")
    assert parts.end is End.DONE and len(losses) == 2 * RECIPE.steps
    chex.assert_trees_all_equal(parts.state, whole.state)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    assert [(x["step"], x.get("loss")) for x in logs[0]] == [(x["step"], x.get("loss")) for x in logs[1]]
    batch, state, repeated = work._frames.batch(0, 2, 1), work.initial(), []
    for _ in range(2):  # on the same pictures
        state, metrics = work._step(state, batch.video, batch.region, jnp.float32(1))
        repeated.append(float(metrics["reconstruction"]))
    assert repeated[1] < repeated[0]
    with pytest.raises(UserError, match="a: was 1, now 2"):
        small_loop.run(Plan(tmp_path / "parts", 5), {"a": 2}, work.initial, step, lambda state: {}, SILENT)


@pytest.mark.slow
def test_a_training_leaves_weights_a_card_and_pictures(tmp_path, monkeypatch):
    for name, value in (("VALIDATION_CLIPS", 1), ("TEST_CLIPS", 1), ("STATISTICS_CLIPS", 2), ("STATISTICS_FRAMES", 5)):
        monkeypatch.setattr(train, name, value)
    monkeypatch.setattr(measure, "FRAMES", 25)
    monkeypatch.setattr(frames, "CLIPS", 2)
    plan = Plan(tmp_path / "run", RECIPE.steps)
    assert train.train(SETTINGS, plan, SILENT) is End.DONE
    folder = tmp_path / "run/result"
    stored = store.open_checkpoint(folder / result.WEIGHTS).tensors
    arrays = {path.removeprefix("vae/"): tensor.read(()) for path, tensor in stored.items()}
    expected = mapping.torch_shapes(table(TINY), vae.abstract_parameters(TINY))
    parameters = {}
    for path, leaf in flatten_dict(vae.abstract_parameters(TINY), sep="/").items():
        assert arrays[path].shape == leaf.shape
        parameters[tuple(path.split("/"))] = arrays[path]
    assert len(arrays) == len(parameters) == len(expected)
    card = json.loads((folder / result.CARD).read_text())
    assert card["passed"] is False and card["training"]["seed"] == 3 and card["vae"]["dim"] == 8
    # five steps from the start, all of a face is still grey: but it is a picture
    assert 8 < card["figures"]["psnr"] < 25
    assert Image.open(folder / result.PICTURE).size == (32 * 8 * 2, 32 * 2 * 2)
    assert Image.open(tmp_path / "run" / curve.FILE).size[0] > 300
    assert train.train(SETTINGS, plan, SILENT) is End.DONE  # nothing is left to do
