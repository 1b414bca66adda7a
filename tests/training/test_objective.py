"""The objective: what is shown, what is dropped, what counts. Formulas are written out anew here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_dataset
from scipy import stats

from itjax.configs.tiny import PRESET
from itjax.errors import UserError
from itjax.models.apply import apply
from itjax.models.dit import DiT, abstract_parameters
from itjax.records import SPEECH_MARGIN
from itjax.training import objective
from itjax.training.config import Dropout, References, TimeDistribution
from itjax.training.objective import Batch, RandomDraws

SIZES = PRESET.networks.dit
NOTHING = Dropout(0.0, 0.0, 0.0, 0.0, 0.0)
SOFT = References()


def random_parameters(seed=0):
    rng = np.random.default_rng(seed)
    normal = lambda x: rng.normal(size=x.shape).astype(np.float32) / max(1, x.shape[-2] if len(x.shape) > 1 else 1) ** 0.5
    return jax.tree.map(normal, abstract_parameters(SIZES))


def random_batch(context_latents, persons=1, seed=0):
    clips = [tiny_dataset.random_clip(i, (32, 64), 41, persons=persons, seed=seed) for i in range(len(context_latents))]
    length = tiny_dataset.LAYOUT.frame_num + 2 * SPEECH_MARGIN
    text = np.zeros((len(context_latents), SIZES.text_len, SIZES.text_dim), np.float32)
    for row, clip in zip(text, clips, strict=True):
        row[: len(clip.text)] = clip.text
    return Batch(
        latents=np.stack([clip.chunks[1] for clip in clips]),
        reference=np.stack([clip.references[5] for clip in clips]),
        clip=np.stack([clip.clip_tokens[5] for clip in clips]),
        speech=np.stack([clip.speech[:, 8 : 8 + length] for clip in clips]),
        text=text,
        context_latents=np.asarray(context_latents, np.int32),
        identity=np.arange(len(context_latents), dtype=np.uint32) + 7,
        masks=np.stack([clip.masks for clip in clips]) if persons == 2 else None,
    )


@pytest.fixture(scope="module")
def parameters():
    return random_parameters()


@pytest.fixture(scope="module")
def losses(parameters):
    null_text = jax.random.normal(jax.random.key(9), (SIZES.text_len, SIZES.text_dim))

    @jax.jit
    def call(batch, draws):
        return objective.losses(DiT(SIZES), parameters, batch, draws, null_text, SOFT)

    call.null_text = null_text
    return call


def no_drops(batch, times):
    shape = batch.latents.shape
    noise = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    zeros = np.zeros(len(times), np.float32)
    return RandomDraws(*map(jnp.asarray, (np.asarray(times, np.float32), noise, zeros, zeros, zeros)))


def test_the_input_is_a_line_from_data_to_noise_and_the_target_its_slope():
    data = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4, 8, 16)), jnp.float32)
    draws = no_drops(random_batch([1, 3]), [0.25, 0.8])
    given, target, counted = objective.add_noise(data, draws, jnp.asarray([1, 3]))
    np.testing.assert_array_equal(counted, [[0, 1, 1, 1, 1], [0, 0, 0, 1, 1]])
    np.testing.assert_array_equal(given[0, :1], data[0, :1])
    np.testing.assert_array_equal(given[1, :3], data[1, :3])
    np.testing.assert_allclose(given[0, 1:], 0.75 * data[0, 1:] + 0.25 * draws.noise[0, 1:], atol=1e-6)
    np.testing.assert_allclose(given[1, 3:], 0.2 * data[1, 3:] + 0.8 * draws.noise[1, 3:], atol=1e-6)
    np.testing.assert_allclose(target, draws.noise - data, atol=1e-6)


def test_the_loss_is_the_mean_square_of_what_the_network_missed(parameters, losses):
    batch = random_batch([1, 3])
    draws = no_drops(batch, [0.3, 0.9])
    wide = lambda x: jnp.asarray(x, jnp.float32)
    given, target, _ = objective.add_noise(wide(batch.latents), draws, jnp.asarray(batch.context_latents))
    first = np.zeros((*given.shape[:-1], 4), np.float32)
    first[:, 0] = 1  # the mask of the latent that is shown: the reference's, in the chunk's first place
    condition = jnp.concatenate([first, wide(batch.reference)], axis=-1)
    around = np.arange(17)[:, None] + np.arange(5)
    heard = wide(batch.speech)[:, :, around]
    call = given, condition, wide(1000 * draws.times), wide(batch.text), wide(batch.clip), heard, None
    predicted = np.asarray(jax.jit(lambda *call: apply(DiT(SIZES), parameters, *call, method="train"))(*call))
    expected = [
        np.square(predicted[i, context_latents:] - np.asarray(target)[i, context_latents:]).mean()
        for i, context_latents in enumerate(batch.context_latents.tolist())
    ]
    np.testing.assert_allclose(losses(batch, draws), expected, rtol=1e-5)


def test_the_context_is_out_of_the_loss(parameters):
    """The noise at a context latent is in its target alone (its input is clean): nothing may come back from there."""
    batch = random_batch([1, 3])
    draws = no_drops(batch, [0.3, 0.9])
    null_text = jnp.zeros((SIZES.text_len, SIZES.text_dim))
    total = lambda noise: objective.losses(DiT(SIZES), parameters, batch, draws._replace(noise=noise), null_text, SOFT).sum()
    gradient = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(draws.noise)))
    assert not gradient[0, :1].any() and not gradient[1, :3].any()
    assert np.all(np.abs(gradient[0, 1:]).max(axis=(1, 2, 3)) > 0)
    assert np.all(np.abs(gradient[1, 3:]).max(axis=(1, 2, 3)) > 0)


@pytest.mark.parametrize("weight", [1.0, 5.0])
def test_a_cell_of_the_region_counts_so_many_times_as_much(weight, monkeypatch):
    batch = random_batch([1, 3])
    region = np.random.default_rng(1).random(batch.latents.shape[:-1]).astype(np.float32)
    draws = no_drops(batch, [0.3, 0.9])
    monkeypatch.setattr(objective, "apply", lambda net, parameters, given, *_, **__: jnp.zeros_like(given))
    null_text = jnp.zeros((SIZES.text_len, SIZES.text_dim))
    found = objective.losses(DiT(SIZES), {}, batch._replace(region=region), draws, null_text, SOFT, weight)
    for i, context_latents in enumerate(batch.context_latents.tolist()):
        errors = np.square(
            np.asarray(draws.noise)[i, context_latents:] - batch.latents[i, context_latents:].astype(np.float32)
        ).mean(-1)
        expected = np.average(errors, weights=1 + (weight - 1) * region[i, context_latents:])
        np.testing.assert_allclose(found[i], expected, rtol=1e-5)


def test_what_is_dropped_is_what_guidance_leaves_out(losses):
    batch = random_batch([1, 3])
    draws = no_drops(batch, [0.4, 0.6])
    one = jnp.asarray([0.0, 1.0])  # of the second example
    clear = lambda x: np.concatenate([x[:1], np.zeros_like(x[1:])])
    silent = batch._replace(speech=clear(batch.speech))
    blind = batch._replace(clip=clear(batch.clip))
    mute = batch._replace(text=np.stack([batch.text[0], np.asarray(losses.null_text)]))
    plain = np.asarray(losses(batch, draws))
    for dropped, without in (("audio", silent), ("image", blind), ("text", mute)):
        found = np.asarray(losses(batch, draws._replace(**{dropped: one})))
        np.testing.assert_allclose(found, losses(without, draws), rtol=1e-6)
        assert found[0] == pytest.approx(plain[0], rel=1e-6) and abs(found[1] - plain[1]) > 1e-6, dropped


def test_two_persons_are_not_told_apart_where_the_sound_is_dropped(parameters):
    batch = random_batch([1, 1], persons=2)
    draws = no_drops(batch, [0.4, 0.6])
    call = jax.jit(lambda b, d: objective.losses(DiT(SIZES), parameters, b, d, jnp.zeros((64, 48)), SOFT))
    swapped = batch._replace(masks=batch.masks[:, [1, 0, 2]])
    heard, other = np.asarray(call(batch, draws)), np.asarray(call(swapped, draws))
    assert np.all(np.abs(heard - other) > 1e-7)
    ones = jnp.ones(2)
    np.testing.assert_allclose(call(batch, draws._replace(audio=ones)), call(swapped, draws._replace(audio=ones)), rtol=1e-6)


def test_draws_depend_on_seed_and_identity_alone():
    batch = random_batch([1, 1, 3, 3])
    order = [2, 0, 3, 1]
    moved = jax.tree.map(lambda x: x[np.asarray(order)], batch)
    draws = objective.draw_randoms(batch, 5, TimeDistribution(), Dropout())
    after = objective.draw_randoms(moved, 5, TimeDistribution(), Dropout())
    for now, before in zip(after, draws, strict=True):
        np.testing.assert_array_equal(now, np.asarray(before)[order])
    other = objective.draw_randoms(batch, 6, TimeDistribution(), Dropout())
    assert not np.any(np.asarray(other.times) == np.asarray(draws.times))
    assert len(np.unique(np.asarray(draws.noise)[:, 0, 0, 0, 0])) == 4


def many(count=20000, **dropout):
    """Draws of many examples whose latents are of one number."""
    batch = random_batch([1])
    rows = jax.tree.map(lambda x: np.broadcast_to(x[0], (count, *x.shape[1:])), batch)
    rows = rows._replace(identity=np.arange(count, dtype=np.uint32), latents=np.zeros((count, 1, 1, 1, 1), np.float16))
    return lambda law: objective.draw_randoms(rows, 0, law, Dropout(**(NOTHING.__dict__ | dropout)))


def test_conditions_are_dropped_as_often_as_asked():
    drawn = many(text=0.3, audio=0.2, both=0.1, image=0.4)(TimeDistribution())
    text, audio, image = (np.asarray(getattr(drawn, name)) > 0 for name in ("text", "audio", "image"))
    assert text.mean() == pytest.approx(1 - 0.7 * 0.9, abs=0.02)
    assert audio.mean() == pytest.approx(1 - 0.8 * 0.9, abs=0.02)
    assert (text & audio).mean() == pytest.approx(0.1 + 0.9 * 0.3 * 0.2, abs=0.02)
    assert image.mean() == pytest.approx(0.4, abs=0.02)
    nothing = many()(TimeDistribution())
    assert not any(np.asarray(getattr(nothing, name)).any() for name in ("text", "audio", "image"))


@pytest.mark.parametrize("law", [TimeDistribution("uniform", shift=1.0), TimeDistribution("uniform", shift=7.0)], ids=str)
def test_uniform_times_are_shifted_as_the_schedule_is(law):
    times = np.asarray(many()(law).times, np.float64)
    unshifted = times / (law.shift - (law.shift - 1) * times)
    assert stats.kstest(unshifted, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("law", [TimeDistribution(shift=1.0), TimeDistribution(mean=0.5, std=0.7, shift=3.0)], ids=str)
def test_logit_normal_times_are_normal_logits(law):
    times = np.asarray(many()(law).times, np.float64)
    unshifted = times / (law.shift - (law.shift - 1) * times)
    logits = np.log(unshifted) - np.log1p(-unshifted)
    assert stats.kstest(logits, "norm", args=(law.mean, law.std)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TimeDistribution(law="cosine"), "times.law cosine"),
        (lambda: TimeDistribution(std=0.0), "times.std 0"),
        (lambda: TimeDistribution(shift=float("inf")), "times.shift inf"),
        (lambda: Dropout(text=1.5), "dropout.text 1.5"),
    ],
)
def test_laws_that_make_no_sense_are_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()
