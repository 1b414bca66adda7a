"""One chunk of video as pure functions: begin, denoise step by step, finish; `chunk_step` is all of them for `lax.scan`.

No file access. The same compiled functions serve the first chunk and all later ones: the first fills its context with
copies of the reference and pins only the first context latent (the VAE is causal, so it is the reference's own latent).
The strategies i2v and fl2v (`itjax.config.Sampler`) pin the first latent of the reference in every chunk.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt8

from itjax.config import Networks, Sampler
from itjax.models import vae
from itjax.models.apply import apply
from itjax.models.clip import Clip
from itjax.models.clip_pixels import clip_pixels
from itjax.models.dit import DiT
from itjax.models.dit_block import BranchIndices, Persons
from itjax.parallel.sharding import constrain
from itjax.sampling import denoise
from itjax.sampling.color import ColorStatistics, match_colors
from itjax.sampling.denoise import Conditions, Context, DenoisingState, EulerSteps
from itjax.sampling.guidance import Scales, make_guide

# P persons · G persons and background · F frames per chunk · M context frames
# T latent frames · U prompts · h w latent grid · S tokens per latent frame


class Reference(NamedTuple):
    """The DiT's conditioning on the reference picture.

    VAE latents of [picture, zeros ...], CLIP tokens, and a mask that is 1 for pictures and 0 for zeros, with one channel
    for each of a latent's four frames.
    """

    latents: Float[Array, "T h w C"]
    clip: Float[Array, "Y Dc"]
    mask: Float[Array, "T 4"]


class Invariants(NamedTuple):
    """Inputs that are the same for all chunks.

    `color_strength` is not used if the program's own is 0. `clip`: the image encoder's parameters; only needed if generated
    frames become references (strategy i2v).
    """

    dit: dict
    vae: dict
    prompts: Float[Array, "U X Dt"]
    steps: EulerSteps
    scales: Scales
    color: ColorStatistics
    color_strength: Float[Array, ""]
    masks: Float[Array, "G S"] | None
    clip: dict | None = None


class ChunkInputs(NamedTuple):
    """Inputs of one chunk.

    `windows`: speech features around each frame, per person. `reference`: None if the reference is the last generated frame
    (strategy i2v), which in the first chunk is the source picture.
    """

    windows: Float[Array, "*n P F W N C"]
    reference: Reference | None
    noise: Float[Array, "*n T h w C"]


class Carry(NamedTuple):
    """State passed to the next chunk: the last frames in -1..1, and how many of the context latents are pinned."""

    frames: Float[Array, "M H W 3"]
    pinned_latents: Int[Array, ""]


class ChunkOutput(NamedTuple):
    """A finished chunk: all frames (including context) as 8-bit pixels and in -1..1, and the latents.

    `finite`: whether all numbers are finite, of the latents after each step, then of the frames (`rollout.streamed` alone
    looks).
    """

    pixels: UInt8[Array, "*n F H W 3"]
    frames: Float[Array, "*n F H W 3"]
    latents: Float[Array, "*n T h w C"]
    finite: tuple[Bool[Array, ""], ...] = ()


class Program(NamedTuple):
    """The static part of a run: network sizes, sampling settings, the dtype of matrix products, and the branches' order.

    `vae_dtype`: that of the VAE, as in the official code float32 by default: what it decodes, it encodes again as context.
    `in_turn`: whether a layer of the DiT is computed for one guidance branch after another, or for all together.
    """

    networks: Networks
    sampler: Sampler
    dtype: DTypeLike
    vae_dtype: DTypeLike = jnp.dtype("float32")
    in_turn: bool = False

    def reduced_to(self, *settings: str, **changed: Any) -> "Program":
        """The program with only these sampler fields, and the others at their defaults or as given in `changed`.

        A function compiled for it is not compiled again when other fields change.
        """
        kept = {name: getattr(self.sampler, name) for name in settings}
        return self._replace(sampler=Sampler(**kept | changed))

    @property
    def net(self) -> DiT:
        """The DiT."""
        return DiT(self.networks.dit, self.dtype, in_turn=self.in_turn)

    @property
    def clip(self) -> Clip:
        """The image encoder."""
        return Clip(self.networks.clip, self.dtype)


def first_carry(picture: Float[Array, "H W 3"], sampler: Sampler) -> Carry:
    """The carry into the first chunk: copies of the reference, with one latent pinned."""
    return Carry(jnp.tile(picture, (sampler.motion_frames, 1, 1, 1)), jnp.asarray(1, jnp.int32))


def constrain_carry(carry: Carry) -> Carry:
    """Replicates the carry on all devices, so that it has the same sharding at the start and end of a chunk."""
    return jax.tree.map(constrain, carry)


def begin_chunk(
    program: Program, invariants: Invariants, carry: Carry, chunk: ChunkInputs
) -> tuple[DenoisingState, Conditions]:
    """The state before the first step, and everything that depends on the chunk but not on the time step."""
    net, sampler = program.net, program.sampler
    reference = last_frame(program, invariants, carry) if chunk.reference is None else chunk.reference
    two_persons = invariants.masks is not None
    # the distinct audio inputs: the persons' voices, and silence (zeros before the adapter), which belongs to no person
    windows = jnp.stack([chunk.windows, jnp.zeros_like(chunk.windows)])
    voiced = jnp.asarray([1.0, 0.0])
    text = invariants.prompts, reference.clip[None], windows, voiced if two_persons else None
    keys_values = apply(net, invariants.dit, *text, method="keys_values")
    branches = guidance_branches(sampler)
    persons = None if invariants.masks is None else Persons(invariants.masks, voiced[branches.audio])
    if sampler.strategy == "soft":
        context = vae.encode(invariants.vae, carry.frames[None], program.networks.vae, program.vae_dtype)[0]
    else:  # the VAE is causal: the reference's first latent encodes the chunk's first frame alone
        context = reference.latents[: sampler.context_latents]
    mask = jnp.broadcast_to(reference.mask[:, None, None], (*chunk.noise.shape[:-1], 4))
    mask_and_reference = jnp.concatenate([mask, reference.latents], axis=-1)
    conditions = Conditions(mask_and_reference, keys_values, branches, persons, Context(context, carry.pinned_latents))
    return denoise.initial_state(chunk.noise, net, conditions.context, sampler), conditions


def guidance_branches(sampler: Sampler) -> BranchIndices:
    """Indices of prompts (0 the user's, 1 the negative) and audio (0 voices, 1 silence) of the guidance branches."""
    text, audio = ((0, 0), (0, 1)) if sampler.branches == 2 else ((0, 1, 1), (0, 0, 1))
    return BranchIndices(jnp.asarray(text, jnp.int32), jnp.asarray(audio, jnp.int32))


def denoise_step(
    program: Program, invariants: Invariants, state: DenoisingState, step: EulerSteps, conditions: Conditions
) -> DenoisingState:
    """One Euler step."""
    guide = make_guide(program.sampler, invariants.scales)
    return denoise.euler_step(program.net, invariants.dit, guide, state, step, conditions)


def finish_chunk(program: Program, invariants: Invariants, latents: Float[Array, "T h w C"]) -> tuple[Carry, ChunkOutput]:
    """Decodes the latents, matches the frames to the reference's colours, and builds the next chunk's carry."""
    sampler = program.sampler
    frames = vae.decode(invariants.vae, latents[None], program.networks.vae, program.vae_dtype)[0]
    if sampler.color_strength > 0:
        frames = match_colors(frames, invariants.color, invariants.color_strength)
    pixels = jnp.round((jnp.clip(frames, -1, 1) + 1) * 127.5).astype(jnp.uint8)
    pinned = jnp.asarray(sampler.context_latents, jnp.int32)
    carry = Carry(frames[-sampler.motion_frames :], pinned)
    return constrain_carry(carry), ChunkOutput(pixels, frames, latents)


def chunk_step(program: Program, invariants: Invariants, carry: Carry, chunk: ChunkInputs) -> tuple[Carry, ChunkOutput]:
    """One whole chunk, as the body of a `lax.scan` over chunks."""
    state, conditions = begin_chunk(program, invariants, carry, chunk)
    body = lambda state, step: (denoise_step(program, invariants, state, step, conditions), None)
    state, _ = jax.lax.scan(body, state, invariants.steps)
    return finish_chunk(program, invariants, state.latent)


def last_frame(program: Program, invariants: Invariants, carry: Carry) -> Reference:
    """Encodes the last frame of the previous chunk as the only reference; in the first chunk it is the source picture."""
    picture = carry.frames[-1]
    parameters = {"vae": invariants.vae, "clip": invariants.clip}
    return encode_reference(program, parameters, picture, clip_pixels(picture, program.networks.clip.image))


def encode_reference(
    program: Program,
    parameters: dict,
    picture: Float[Array, "H W 3"],
    clip_picture: Float[Array, "s s 3"],
    last: Float[Array, "H W 3"] | None = None,
) -> Reference:
    """Encodes the reference: latents of [picture, zeros ...] over the chunk, and CLIP tokens.

    `parameters`: those of "vae" and "clip". With `last`, a picture in -1..1 like `picture`, the latents encode
    [picture, zeros ..., last] (strategy fl2v).
    """
    frames = jnp.zeros((program.sampler.frame_num, *picture.shape)).at[0].set(picture)
    if last is not None:
        frames = frames.at[-1].set(last)
    latents = vae.encode(parameters["vae"], frames[None], program.networks.vae, program.vae_dtype)[0]
    clip = apply(program.clip, parameters["clip"], clip_picture[None])[0]
    return Reference(latents, clip.astype(jnp.float32), reference_mask(len(latents), last is not None))


def reference_mask(num_latents: int, with_last: bool = False) -> Float[Array, "{num_latents} 4"]:
    """1 for frames of a latent that are pictures, 0 for frames that are zeros.

    The first latent's single frame fills all four channels; of the last latent's four frames, only the last is a picture
    (as in Wan's first-last-frame model).
    """
    mask = jnp.zeros((num_latents, 4)).at[0].set(1)
    return mask.at[-1, -1].set(1) if with_last else mask
