"""The baselines i2v and fl2v in the chunk loop: what a chunk is shown, what it goes on from, and what it does not know."""

import dataclasses
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_rollout import CHUNKS, HEIGHT, NETWORKS, WIDTH, random_parameters, setting

from itjax.config import Sampler
from itjax.errors import UserError
from itjax.models import vae
from itjax.models.clip_pixels import clip_pixels
from itjax.sampling import chunk, rollout
from itjax.sampling.chunk import Carry, ChunkInputs, Invariants, Program, Reference
from itjax.weights.specs import network_specs

SOFT = Sampler(frame_num=9, motion_frames=1, steps=2, color_strength=0.5)
I2V, FL2V = (dataclasses.replace(SOFT, strategy=name) for name in ("i2v", "fl2v"))


class Setting(NamedTuple):
    """`parts`: the chunks one by one; `chunks`: the same stacked, where one reference (or none) serves all."""

    program: Program
    invariants: Invariants
    carry: Carry
    parts: list[ChunkInputs]
    chunks: ChunkInputs

    def streamed(self, parts=None):
        """[(carry, output) of each chunk]"""
        return list(rollout.streamed(self.program, self.invariants, self.carry, self.parts if parts is None else parts))


@pytest.fixture(scope="module")
def parameters():
    specs = network_specs(NETWORKS)
    return {name: random_parameters(specs[name].abstract, i) for i, name in enumerate(("dit", "vae", "clip"))}


@pytest.fixture(scope="module")
def pictures():
    """What a film shows at the borders of the chunks, in -1..1; the first is that of the carry."""
    drawn = np.random.default_rng(1).uniform(-1, 1, (CHUNKS, HEIGHT, WIDTH, 3))
    return jnp.asarray(drawn, jnp.float32)


@pytest.fixture(scope="module")
def encoded(parameters):
    """encoded(first, last=None): a picture as a chunk is shown it."""
    program = Program(NETWORKS, SOFT, jnp.dtype("float32"))
    return jax.jit(lambda first, last=None: chunk.encode_reference(program, parameters, first, clip_pixels(first), last))


@pytest.fixture
def made(parameters, pictures, encoded):
    def make(sampler: Sampler, references: list[Reference | None] | None = None) -> Setting:
        program, invariants, carry, chunks = setting(parameters, sampler)
        carry = carry._replace(frames=pictures[:1])
        if sampler is I2V:
            references, invariants = [None] * CHUNKS, invariants._replace(clip=parameters["clip"])
        if references is None:
            references = [encoded(pictures[0])] * CHUNKS
        divided = [ChunkInputs(chunks.windows[i], references[i], chunks.noise[i]) for i in range(CHUNKS)]
        return Setting(program, invariants, carry, divided, chunks._replace(reference=references[0]))

    return make


@pytest.fixture
def segments(pictures, encoded):
    """The references of fl2v: from each picture to the next; the film ends with the last one."""
    return [encoded(pictures[i], pictures[min(i + 1, CHUNKS - 1)]) for i in range(CHUNKS)]


def shown(case: Setting, carry: Carry, part: ChunkInputs):
    """(mask, latents, pinned context) that the DiT is told of in a chunk."""
    _, conditions = jax.jit(chunk.begin_chunk, static_argnums=0)(case.program, case.invariants, carry, part)
    return conditions.mask_and_reference[..., :4], conditions.mask_and_reference[..., 4:], conditions.context


# -- the mask ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_last", [False, True])
def test_mask_is_that_of_wan(with_last):
    """Its image-to-video code: a mask of frames, the first one repeated four times, then frames by four as channels."""
    frames = np.ones(81)
    frames[1 : -1 if with_last else None] = 0
    expected = np.concatenate([frames[:1].repeat(4), frames[1:]]).reshape(21, 4)
    np.testing.assert_array_equal(chunk.reference_mask(21, with_last), expected)


def test_fl2v_is_shown_first_and_last_frame_and_goes_on_from_the_first(made, segments, pictures, parameters):
    case = made(FL2V, segments)
    mask, latents, context = shown(case, case.carry, case.parts[1])
    assert np.array_equal(mask[..., :3].any((1, 2)), [[1, 1, 1], [0, 0, 0], [0, 0, 0]])
    assert np.array_equal(mask[..., 3].min((1, 2)), [1, 0, 1])
    encode = jax.jit(lambda frames: vae.encode(parameters["vae"], frames[None], NETWORKS.vae)[0])
    film = jnp.zeros((9, HEIGHT, WIDTH, 3)).at[0].set(pictures[1]).at[-1].set(pictures[2])
    np.testing.assert_allclose(latents, encode(film), atol=2e-5)
    # the VAE is causal: this is the first frame alone, of the source and not of the carry
    np.testing.assert_allclose(context.latents, encode(pictures[1:2]), atol=2e-5)
    assert context.pinned == 1 and not np.allclose(context.latents, encode(case.carry.frames), atol=1e-2)


# -- i2v --------------------------------------------------------------------------------------------------------------


def test_i2v_is_shown_its_own_last_frame(made, encoded):
    case = made(I2V)
    carry = case.carry
    for part, (after, output) in zip(case.parts, case.streamed(), strict=True):
        mask, latents, context = shown(case, carry, part)
        expected = encoded(carry.frames[-1])
        np.testing.assert_allclose(latents, expected.latents, atol=2e-5)
        np.testing.assert_array_equal(mask, np.broadcast_to(chunk.reference_mask(3)[:, None, None], mask.shape))
        np.testing.assert_array_equal(context.latents, latents[:1])
        np.testing.assert_array_equal(output.latents[:1], context.latents)
        # XLA may compute the same pixels twice, in two fusions: a bit of float32 in pixels of -1..1
        np.testing.assert_allclose(after.frames, output.frames[-1:], atol=1e-6)
        carry = after


def test_i2v_is_soft_with_each_last_frame_as_the_source(made, encoded):
    """Its CLIP tokens as well: a soft chunk that is given that frame as its reference comes out the same."""
    ours, soft = made(I2V), made(SOFT)
    carry, sourced = ours.carry, []
    for part, (after, _) in zip(ours.parts, ours.streamed(), strict=True):
        sourced.append((carry, part._replace(reference=encoded(carry.frames[-1]))))
        carry = after
    for (_, output), (before, part) in zip(ours.streamed(), sourced, strict=True):
        (_, expected), *_ = rollout.streamed(soft.program, soft.invariants, before, [part])
        # the same frame encoded twice in soft, and in another program: the order of sums differs
        np.testing.assert_allclose(output.latents, expected.latents, atol=2e-4)
    drifting = ours.streamed()[1][1].latents - soft.streamed()[1][1].latents
    assert np.abs(drifting).mean() > 1e-3  # whereas the source's picture in every chunk gives something else


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [I2V, FL2V], ids=["i2v", "fl2v"])
def test_both_drivers_agree(sampler, made, segments):
    case = made(sampler, [segments[0]] * CHUNKS)
    states = case.streamed()
    last, whole = jax.jit(rollout.scanned, static_argnums=0)(case.program, case.invariants, case.carry, case.chunks)
    ours = jax.tree.map(lambda *x: np.stack(x), *(output for _, output in states))
    chex.assert_trees_all_close(ours.latents, whole.latents, atol=2e-4)
    # half a step of 8-bit pixels; up to 2.3e-3 was seen, in one of 124416 values
    chex.assert_trees_all_close(ours.frames, whole.frames, atol=4e-3)
    chex.assert_trees_all_close(states[-1][0].frames, last.frames, atol=4e-3)


# -- what a chunk knows of the one before -----------------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "knows"), [(SOFT, True), (I2V, True), (FL2V, False)], ids=["soft", "i2v", "fl2v"])
def test_only_fl2v_makes_each_chunk_on_its_own(sampler, knows, made, segments):
    case = made(sampler, segments)
    first, *later = case.parts
    before, after = case.streamed(), case.streamed([first._replace(noise=-first.noise), *later])
    assert np.abs(before[0][1].latents - after[0][1].latents).mean() > 0.1
    for (_, one), (_, other) in zip(before[1:], after[1:], strict=True):
        same = np.array_equal(one.latents, other.latents) and np.array_equal(one.pixels, other.pixels)
        assert same != knows


def test_fl2v_depends_on_the_last_frame_that_is_shown(made, segments, encoded, pictures):
    other = made(FL2V, [encoded(pictures[0], -pictures[1]), *segments[1:]])
    first, second = made(FL2V, segments).streamed()[0][1], other.streamed()[0][1]
    np.testing.assert_array_equal(first.latents[:1], second.latents[:1])  # what is pinned
    assert np.abs(first.latents - second.latents).mean() > 1e-4


@pytest.mark.parametrize("sampler", [I2V, FL2V], ids=["i2v", "fl2v"])
def test_later_chunks_do_not_compile_again(sampler, made, segments):
    case = made(sampler, segments)
    counts = [rollout.compiled_programs() for _ in rollout.streamed(case.program, case.invariants, case.carry, case.parts)]
    assert len(counts) == CHUNKS and len(set(counts)) == 1


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["i2v", "fl2v"])
def test_baselines_go_on_from_one_frame(strategy):
    assert Sampler(strategy=strategy, motion_frames=1).new_frames == 80
    with pytest.raises(UserError, match=f"motion_frames 9: with strategy {strategy} a chunk starts from one frame"):
        Sampler(strategy=strategy)


def test_other_strategies_are_refused():
    with pytest.raises(UserError, match="strategy flf2v: must be one of soft, i2v, fl2v"):
        Sampler(strategy="flf2v", motion_frames=1)
