"""The training step as a function: what it changes and what it leaves, against sums written out here."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_dataset
from test_objective import NOTHING, random_batch

from itjax.errors import UserError
from itjax.parallel.sharding import make_mesh
from itjax.training import objective, parameters, state, step
from itjax.training.config import Optimizer, TrainedParameters
from itjax.training.parameters import flat
from itjax.training.reporter import step_settings

SIZES = tiny_dataset.PRESET.networks.dit
NULL = jnp.zeros((SIZES.text_len, SIZES.text_dim))
PARTS = ("audio", "lora", "full")
QUICK = Optimizer(learning_rate=1e-2, warmup_steps=5, ema=0.9)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(1, 1, heads=SIZES.num_heads, devices=jax.devices()[:1])


@pytest.fixture
def begun(weights, mesh, settings):
    """begun(parts, ...) -> settings, the state before the first step, and the frozen parameters."""

    def begin(parts="audio", trained=None, **changed):
        asked = settings(
            **(
                {"trained": trained or TrainedParameters(parts, lora_rank=4), "dropout": NOTHING, "optimizer": QUICK}
                | changed
            )
        )
        trainable = parameters.read_trainable(weights, SIZES, asked.trained, mesh, seed=0)
        frozen = parameters.read_frozen(weights, SIZES, asked.trained, mesh, jnp.float32)
        return asked, state.sharded_initial_state(trainable, asked.optimizer, mesh), frozen

    return begin


def step_of(asked):
    return _step_of(step_settings(asked))


@cache  # else each test traces it anew
def _step_of(asked):
    return jax.jit(partial(step.train_step, asked, SIZES))


@cache
def _losses_of(asked):
    return jax.jit(partial(step.losses_of, asked, SIZES))


@pytest.fixture(autouse=True)
def on_the_mesh(mesh):
    """As a run is: else what a step gives lies elsewhere than what it takes, and the next one is compiled anew."""
    with jax.set_mesh(mesh):
        yield


def losses_of(asked, now, frozen, batch):
    """The losses that a step starts from, without its gradients, which take long to compile."""
    draws = objective.draw_randoms(batch, asked.seed, asked.times, asked.dropout)
    return np.asarray(_losses_of(step_settings(asked))(now.trainable, frozen, batch, draws, NULL))


def equal_bits(tree, other):
    ours, theirs = flat(tree), flat(other)
    assert ours.keys() == theirs.keys()
    return {path: np.asarray(ours[path]).tobytes() == np.asarray(theirs[path]).tobytes() for path in ours}


def test_runs_of_the_same_settings_share_a_program(begun, mesh):
    asked, now, _ = begun("audio")
    compiled = lambda settings: step.compile_step(step_settings(settings), SIZES, now, mesh)
    assert compiled(asked) is compiled(replace(asked, run="another folder")) is not compiled(replace(asked, seed=1))


@pytest.mark.parametrize(
    ("parts", "factor", "name"),
    [("audio", 0.6, "adamw"), ("lora", 0.8, "adamw"), ("full", 0.4, "adamw"), ("full", 0.4, "muon")],
)
def test_the_loss_of_a_fixed_batch_falls(begun, parts, factor, name):
    """To the stated share of its first value in 15 steps of rate 1e-2: to 0.41, 0.60 and 0.21 where AdamW was measured."""
    asked, now, frozen = begun(parts, optimizer=replace(QUICK, name=name))
    batch, run = random_batch([1, 3, 1, 3]), step_of(asked)
    before = jax.tree.map(np.array, frozen)
    losses, good = [], jnp.asarray(True)
    for _ in range(15):
        now, report = run(now, good, frozen, batch, NULL)
        good = report.good
        losses.append(float(report.loss))
    print(parts, name, losses[-1] / losses[0])
    assert losses[-1] < factor * losses[0], (losses[0], losses[-1])
    assert bool(report.good) and int(now.step) == 15
    if parts != "full":
        assert all(equal_bits(frozen, before).values())


@pytest.mark.parametrize("parts", PARTS)
def test_what_trains_is_what_was_asked_and_has_all_the_optimizer_s_memory(begun, parts, weights, mesh):
    _, now, frozen = begun(parts)
    everything = flat(weights.read("dit", mesh, jnp.float32))
    trains = set(flat(now.trainable))
    if parts == "audio":
        assert trains == {p for p in everything if p.startswith("audio_adapter") or "audio_" in p or "norm_x" in p}
    elif parts == "lora":
        assert {p.split("/")[-1] for p in trains} == {"lora_down", "lora_up"} and len(trains) == 20
        assert not trains & set(flat(frozen))
    else:
        assert trains == set(everything) and not frozen
    if parts != "lora":
        assert trains | set(flat(frozen)) == set(everything)
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    scalars = sum(leaf.ndim == 0 for leaf in jax.tree.leaves(now.optimizer))
    assert count(now.optimizer) == 2 * count(now.trainable) + scalars  # two moments each, nothing for what is frozen
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(now.trainable))


def test_a_step_is_adamw_with_warm_up_clipping_and_an_average(begun):
    optimizer = Optimizer(
        learning_rate=1e-2, warmup_steps=4, weight_decay=0.1, beta1=0.8, beta2=0.9, epsilon=1e-3, clip_norm=0.05, ema=0.75
    )
    asked, now, frozen = begun("audio", optimizer=optimizer)
    batch, run = random_batch([1, 3]), step_of(asked)
    slope = jax.jit(lambda trainable: step.gradients_of(asked, SIZES, trainable, frozen, batch, NULL)[1])
    value = {path: np.asarray(leaf, np.float64) for path, leaf in flat(now.trainable).items()}
    first, second, mean = ({path: 0 * leaf for path, leaf in value.items()} for _ in range(3))
    mean = dict(value)
    for number in range(1, 4):
        gradient = {path: np.asarray(leaf, np.float64) for path, leaf in flat(slope(now.trainable)).items()}
        norm = np.sqrt(sum(np.square(leaf).sum() for leaf in gradient.values()))
        assert norm > optimizer.clip_norm  # else nothing of clipping is seen
        now, report = run(now, jnp.asarray(True), frozen, batch, NULL)
        rate = 1e-2 * min(1, number / 4)
        assert float(report.gradient_norm) == pytest.approx(norm, rel=1e-4)
        assert float(report.learning_rate) == pytest.approx(rate, rel=1e-6)
        for path, leaf in gradient.items():
            clipped = leaf * optimizer.clip_norm / norm
            first[path] = 0.8 * first[path] + 0.2 * clipped
            second[path] = 0.9 * second[path] + 0.1 * clipped**2
            update = first[path] / (1 - 0.8**number) / (np.sqrt(second[path] / (1 - 0.9**number)) + 1e-3)
            decay = 0.1 * value[path] if path.endswith("kernel") else 0
            value[path] = value[path] - rate * (update + decay)
            mean[path] = 0.75 * mean[path] + 0.25 * value[path]
    for path, leaf in flat(now.trainable).items():
        # float32 gradients of a loss near 3: a large epsilon keeps Adam from dividing by those that are but rounding
        np.testing.assert_allclose(leaf, value[path], atol=2e-3 * rate, err_msg=path)
        np.testing.assert_allclose(flat(now.ema)[path], mean[path], atol=2e-3 * rate, err_msg=path)


def quintic(matrix):
    """Newton and Schulz's iteration with Jordan's coefficients, in float64."""
    x = matrix / np.linalg.norm(matrix)
    x = x.T if len(matrix) > len(matrix.T) else x
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x.T if len(matrix) > len(matrix.T) else x


def test_a_step_with_muon_orthogonalises_the_momentum_of_the_layers_matrices(begun):
    rates = {"learning_rate": 1e-2, "warmup_steps": 1, "weight_decay": 0.1, "epsilon": 1e-3, "ema": 0.75}
    (asked, now, frozen), (usual, other, _) = (
        begun("audio", optimizer=Optimizer(name, **rates)) for name in ("muon", "adamw")
    )
    batch, run = random_batch([1, 3]), step_of(asked)
    slope = jax.jit(lambda trainable: step.gradients_of(asked, SIZES, trainable, frozen, batch, NULL)[1])
    matrices = {path for path in flat(now.trainable) if path.startswith("blocks/") and path.endswith("kernel")}
    assert {path.split("/")[1] for path in matrices} == {"audio_q", "audio_kv", "audio_o"}
    value = {path: np.asarray(leaf, np.float64) for path, leaf in flat(now.trainable).items() if path in matrices}
    momentum = {path: 0 * leaf for path, leaf in value.items()}
    for number in range(2):
        gradient = {path: np.asarray(leaf, np.float64) for path, leaf in flat(slope(now.trainable)).items()}
        now, report = run(now, jnp.asarray(True), frozen, batch, NULL)
        scale = min(1, 1 / float(report.gradient_norm))
        for path in matrices:
            momentum[path] = 0.95 * momentum[path] + scale * gradient[path]
            ahead = 0.95 * momentum[path] + scale * gradient[path]
            update = np.stack([0.2 * max(layer.shape) ** 0.5 * quintic(layer) for layer in ahead])
            value[path] = value[path] - 1e-2 * (update + 0.1 * value[path])
            # the iteration enlarges the rounding of directions in which there is hardly a gradient by up to 3.4 ** 5
            np.testing.assert_allclose(flat(now.trainable)[path], value[path], atol=1e-5, err_msg=path)
        if number == 0:
            other, _ = step_of(usual)(other, jnp.asarray(True), frozen, batch, NULL)
            same = equal_bits(now.trainable, other.trainable)
            assert matrices == {path for path in same if not same[path]} and len(same) > 2 * len(matrices)
    count = lambda leaves: sum(leaf.size for leaf in leaves)
    trained, stored = flat(now.trainable), jax.tree.leaves(now.optimizer)
    scalars = sum(leaf.ndim == 0 for leaf in stored)
    assert count(stored) == 2 * count(trained.values()) - count(trained[path] for path in matrices) + scalars


def test_accumulation_changes_nothing(begun):
    asked, now, frozen = begun("audio")
    batch = random_batch([1, 3, 1, 3])
    alone, plain = step_of(asked)(now, jnp.asarray(True), frozen, batch, NULL)
    after, report = step_of(replace(asked, accumulation=2))(now, jnp.asarray(True), frozen, batch, NULL)
    np.testing.assert_allclose(report.losses, plain.losses, rtol=1e-5)
    np.testing.assert_array_equal(report.times, plain.times)
    assert float(report.gradient_norm) == pytest.approx(float(plain.gradient_norm), rel=1e-5)
    for ours, theirs in zip(jax.tree.leaves(after.optimizer), jax.tree.leaves(alone.optimizer), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()) + 1e-12)


def test_after_a_loss_that_is_no_number_the_state_stays(begun):
    asked, now, frozen = begun("audio")
    run, good = step_of(asked), random_batch([1, 3, 1, 3])
    bad = good._replace(latents=good.latents * np.float16("nan"))
    once, report = run(now, jnp.asarray(True), frozen, good, NULL)
    then, broken = run(once, report.good, frozen, bad, NULL)
    last, after = run(then, broken.good, frozen, good, NULL)
    assert bool(report.good) and not bool(broken.good) and not bool(after.good)
    assert not np.isfinite(float(broken.loss)) and np.isfinite(float(after.loss))
    for kept in (then, last):
        assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(once), strict=True))


def test_lora_and_new_audio_parts_begin_without_a_say(begun, weights, mesh):
    batch = random_batch([1, 3])
    asked, plain, frozen = begun("audio")
    base = losses_of(asked, plain, frozen, batch)
    asked_lora, lora, everything = begun("lora")
    np.testing.assert_allclose(losses_of(asked_lora, lora, everything, batch), base, rtol=1e-5)
    asked_new, new, frozen = begun(trained=TrainedParameters("audio", new_audio=True))
    leaves = flat(new.trainable)
    assert not np.asarray(leaves["blocks/audio_o/kernel"]).any() and np.asarray(leaves["blocks/audio_q/kernel"]).any()
    before = losses_of(asked_new, new, frozen, batch)
    silent = batch._replace(speech=np.zeros_like(batch.speech))
    without = losses_of(asked_new, new, frozen, silent)
    np.testing.assert_allclose(before, without, rtol=1e-5)  # the sound changes nothing yet
    assert np.all(np.abs(before - base) > 1e-6)


@pytest.mark.parametrize(
    ("trained", "said"),
    [
        (TrainedParameters("lora", lora_layers=("q", "nothing")), "lora-layers nothing: the blocks have"),
        (TrainedParameters("lora", lora_rank=97), "lora-rank 97: blocks/.* at most 96"),
    ],
)
def test_lora_that_does_not_fit_is_refused(trained, said):
    with pytest.raises(UserError, match=said):
        parameters.abstract(SIZES, trained)


def test_lora_layers_are_shell_patterns():
    trains, _ = parameters.abstract(SIZES, TrainedParameters("lora", lora_rank=4, lora_layers=("ffn_*", "?")))
    assert {path.split("/")[1] for path in flat(trains)} == {"ffn_in", "ffn_out", "q", "k", "v", "o"}


def test_matrix_products_are_in_the_compute_type(begun):
    asked, now, frozen = begun("audio", dtype="bfloat16", remat="full")
    frozen = jax.tree.map(lambda x: x.astype(jnp.bfloat16), frozen)
    batch = random_batch([1, 3])
    program, (after, _) = jax.make_jaxpr(partial(step.train_step, asked, SIZES), return_shape=True)(
        now, jnp.asarray(True), frozen, batch, NULL
    )
    assert str(program).count("bf16") > 100
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((after.trainable, after.ema)))
    exact = losses_of(replace(asked, dtype="float32"), now, frozen, batch)
    # bf16 has 8 bits: the loss, a mean over thousands of errors, is good to a hundredth
    np.testing.assert_allclose(losses_of(asked, now, frozen, batch), exact, rtol=1e-2)


def test_the_rate_falls_to_zero_along_a_cosine():
    rate = state.learning_rate(Optimizer(learning_rate=2.0, warmup_steps=10, decay_steps=110))
    assert [float(rate(step)) for step in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert [float(rate(step)) for step in (35, 60, 110, 500)] == pytest.approx([1 + 0.5**0.5, 1.0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("steps", [1, 10])
def test_a_rate_that_falls_before_it_has_risen_is_refused(steps):
    with pytest.raises(UserError, match=f"optimizer.decay-steps {steps}: must be 0, or above 1 and above optimizer.warmup"):
        Optimizer(warmup_steps=10 * (steps > 1), decay_steps=steps)
