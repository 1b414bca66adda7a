"""Properties of the chunk loop that hold whatever the weights are: the networks here are tiny and random."""

import dataclasses
import weakref

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from itjax import configs
from itjax.config import Apg, Sampler
from itjax.models import vae
from itjax.models.dit import sinusoidal_embedding
from itjax.sampling import rollout
from itjax.sampling.chunk import ChunkInputs, Invariants, Program, Reference, first_carry, reference_mask
from itjax.sampling.color import color_statistics
from itjax.sampling.denoise import EulerSteps
from itjax.sampling.guidance import scales_of
from itjax.sampling.schedule import euler_times
from itjax.weights.specs import network_specs

TINY = configs.PRESETS["tiny"].networks
# one residual block a level: what holds for the loop holds with fewer, and they take half as long to compile
NETWORKS = dataclasses.replace(TINY, vae=dataclasses.replace(TINY.vae, num_res_blocks=1))
SAMPLER = Sampler(frame_num=9, motion_frames=5, steps=2, color_strength=0.5)
WITHOUT_TEXT = dataclasses.replace(SAMPLER, text_scale=1.0)
HEIGHT, WIDTH, CHUNKS = 32, 48, 3


def random_parameters(abstract: dict, seed: int) -> dict:
    """Values near those of a trained network: small matrices, norms of one."""
    rng = np.random.default_rng(seed)
    fill = lambda path, x: jnp.asarray(
        1 + rng.normal(0, 0.02, x.shape) if path[-1].key in ("scale", "gamma") else rng.normal(0, 0.08, x.shape), x.dtype
    )
    return jax.tree.map_with_path(fill, abstract)


@pytest.fixture(scope="module")
def parameters():
    specs = network_specs(NETWORKS)
    return {name: random_parameters(specs[name].abstract, i) for i, name in enumerate(("dit", "vae"))}


def setting(parameters, sampler=SAMPLER, persons=1, run=None):
    """(program, fixed, first carry, stacked chunks) with random inputs."""
    rng = np.random.default_rng(7)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    program = Program(NETWORKS, sampler, jnp.dtype("float32"))
    dit, h, w = NETWORKS.dit, HEIGHT // 8, WIDTH // 8
    picture = jnp.asarray(rng.uniform(-1, 1, (HEIGHT, WIDTH, 3)), jnp.float32)
    t = euler_times(sampler.steps, 7.0)
    features = program.net.apply(
        {"params": parameters["dit"]}, jnp.asarray(sinusoidal_embedding(t[:-1], dit.freq_dim)), method="time_features"
    )
    run = np.ones(sampler.steps, bool) if run is None else run
    steps = EulerSteps(jnp.asarray(t[:-1]), jnp.asarray(t[1:]), features, jnp.asarray(run))
    masks = None
    if persons == 2:
        left = np.arange(w // 2) < w // 4
        row = np.stack([left, ~left & (np.arange(w // 2) > w // 4), np.arange(w // 2) == w // 4])
        masks = jnp.asarray(np.tile(row[:, None], (1, h // 2, 1)).reshape(3, -1), jnp.float32)
    invariants = Invariants(
        parameters["dit"], parameters["vae"], normal(2, dit.text_len, dit.text_dim), steps, scales_of(sampler),
        color_statistics(picture), jnp.asarray(sampler.color_strength), masks,
    )  # fmt: skip
    audio, latents = dit.audio, sampler.num_latents
    windows = normal(CHUNKS, persons, sampler.frame_num, audio.window, audio.layers, audio.channels)
    reference = Reference(normal(latents, h, w, 16), normal(257, dit.clip_dim), reference_mask(latents))
    chunks = ChunkInputs(windows, reference, normal(CHUNKS, latents, h, w, 16))
    return program, invariants, first_carry(picture, sampler), chunks


def one_by_one(chunks):
    for i in range(len(chunks.noise)):
        yield ChunkInputs(chunks.windows[i], chunks.reference, chunks.noise[i])


def streamed(program, invariants, carry, chunks):
    outputs = [output for _, output in rollout.streamed(program, invariants, carry, one_by_one(chunks))]
    return jax.tree.map(lambda *x: np.stack(x), *outputs)


def variants():
    yield "plain", SAMPLER, 1
    yield "two persons, text scale 1", WITHOUT_TEXT, 2
    yield "APG and TeaCache", dataclasses.replace(SAMPLER, apg=Apg(), teacache_threshold=0.2), 1


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "persons"), [v[1:] for v in variants()], ids=[v[0] for v in variants()])
def test_both_drivers_agree(sampler, persons, parameters):
    program, invariants, carry, chunks = setting(parameters, sampler, persons)
    last, whole = jax.jit(rollout.scanned, static_argnums=0)(program, invariants, carry, chunks)
    parts = streamed(program, invariants, carry, chunks)
    # the same operations, fused differently; each chunk starts from the frames of the one before
    chex.assert_trees_all_close(parts.latents, whole.latents, atol=2e-4)
    chex.assert_trees_all_close(parts.frames, whole.frames, atol=2e-3)
    assert int(last.pinned_latents) == sampler.context_latents


def test_context_is_what_the_chunk_before_ended_with(parameters):
    """The pinned latents of each chunk are those of VAE(last frames); in the first chunk only the reference's is."""
    program, invariants, carry, chunks = setting(parameters)
    encode = jax.jit(lambda frames: vae.encode(invariants.vae, frames[None], NETWORKS.vae)[0])
    for state, output in rollout.streamed(program, invariants, carry, one_by_one(chunks)):
        held = int(carry.pinned_latents)
        np.testing.assert_allclose(output.latents[:held], encode(carry.frames)[:held], atol=2e-5)
        start = output.latents
        # XLA may compute the same pixels twice, in two fusions: a bit of float32 in pixels of -1..1
        np.testing.assert_allclose(state.frames, output.frames[-SAMPLER.motion_frames :], atol=1e-6)
        assert not np.allclose(start[held], encode(carry.frames)[min(held, 1)], atol=1e-3)
        carry = state


def test_the_next_chunk_is_begun_before_one_is_handed_out_and_its_error_comes_after(parameters):
    program, invariants, carry, chunks = setting(parameters)
    read, made = [], []

    def inputs():
        for number, part in enumerate(one_by_one(chunks)):
            if number == 2:
                raise OSError("the film is damaged from here on")
            read.append(number)
            yield part

    with pytest.raises(OSError, match="damaged from here on"):
        for _, output in rollout.streamed(program, invariants, carry, inputs()):
            made.append(list(read))
            assert all(output.finite) and len(output.finite) == SAMPLER.steps + 1
    assert made == [[0, 1], [0, 1]]


@pytest.mark.parametrize("step", range(SAMPLER.steps + 1))
def test_the_first_step_whose_numbers_are_not_finite_is_known(step, parameters):
    """The last number is that of the frames, which the VAE makes."""
    program, invariants, carry, chunks = setting(parameters)
    if step < SAMPLER.steps:
        invariants = invariants._replace(steps=invariants.steps._replace(t=invariants.steps.t.at[step].set(jnp.nan)))
    else:
        damaged = jax.tree.map(lambda x: jnp.full_like(x, jnp.inf), invariants.vae["decoder"])
        invariants = invariants._replace(vae=invariants.vae | {"decoder": damaged})
    _, output = next(rollout.streamed(program, invariants, carry, one_by_one(chunks)))
    assert [bool(finite) for finite in output.finite] == [i < step for i in range(SAMPLER.steps + 1)]


def test_keys_and_values_of_a_chunk_are_gone_before_the_next_one_is_begun(parameters, monkeypatch):
    """With the 14B at 480p they are 2 GiB."""
    program, invariants, carry, chunks = setting(parameters)
    begin, alive, kept = rollout._begin, [], []

    def begun(*args):
        alive.append([reference() is not None for reference in kept])
        state, conditions = begin(*args)
        kept.append(weakref.ref(conditions.keys_values.audio_k))
        return state, conditions

    monkeypatch.setattr(rollout, "_begin", begun)
    list(rollout.streamed(program, invariants, carry, one_by_one(chunks)))
    assert alive == [[], [False], [False, False]]


def test_later_chunks_do_not_compile_again(parameters):
    program, invariants, carry, chunks = setting(parameters)
    counts = [rollout.compiled_programs() for _ in rollout.streamed(program, invariants, carry, one_by_one(chunks))]
    assert len(counts) == CHUNKS and len(set(counts)) == 1
    list(rollout.streamed(program, invariants, carry, one_by_one(chunks)))
    assert rollout.compiled_programs() == counts[0]
    program, invariants, carry, chunks = setting(parameters, dataclasses.replace(SAMPLER, steps=3, shift=3.0))
    list(rollout.streamed(program, invariants, carry, one_by_one(chunks)))
    assert rollout.compiled_programs() == counts[0]


@pytest.mark.parametrize(
    ("changed", "compiled"),
    [
        ({"steps": 3, "shift": 3.0}, 0),
        ({"teacache_threshold": 0.1}, 1),
        ({"audio_scale": 2.0, "text_scale": 3.0, "color_strength": 0.4}, 0),
        ({"color_strength": 0.0}, 1),
        ({"text_scale": 1.0}, 2),
        ({"motion_frames": 1}, 2),
    ],
)
def test_only_what_depends_on_a_setting_is_compiled_again(changed, compiled):
    wanted: list[set] = [set(), set(), set()]
    for sampler in (SAMPLER, dataclasses.replace(SAMPLER, **changed)):
        program = Program(NETWORKS, sampler, jnp.dtype("float32"))
        for found, part in zip(wanted, rollout._parts(program), strict=True):
            found.add(part)
    assert sum(len(found) - 1 for found in wanted) == compiled


def test_step_cache_that_never_skips_changes_nothing(parameters):
    cached = dataclasses.replace(SAMPLER, teacache_threshold=0.0)
    plain, ours = streamed(*setting(parameters)), streamed(*setting(parameters, cached))
    chex.assert_trees_all_close(ours.latents, plain.latents, atol=2e-4)


def test_skipped_step_adds_what_the_blocks_added_before(parameters):
    """With the second of two steps skipped, the velocity there is head(x + last residual): not that of a run."""
    cached = dataclasses.replace(SAMPLER, teacache_threshold=0.2)
    runs = streamed(*setting(parameters, cached))
    skips = streamed(*setting(parameters, cached, run=np.array([True, False])))
    assert np.isfinite(skips.latents).all()
    assert 1e-4 < np.abs(skips.latents - runs.latents).mean() < 1


def test_each_of_two_persons_hears_their_own_voice(parameters):
    """Swapping the voices of two persons changes the video: labels tell who is who."""
    program, invariants, carry, chunks = setting(parameters, WITHOUT_TEXT, persons=2)
    swapped = chunks._replace(windows=chunks.windows[:, ::-1])
    first, second = streamed(program, invariants, carry, chunks), streamed(program, invariants, carry, swapped)
    assert np.abs(first.latents - second.latents).mean() > 1e-5
