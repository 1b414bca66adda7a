"""Tells runs apart: an interrupted run is continued only with everything that determines its frames unchanged."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import jax.numpy as jnp

from itjax.input_files import content_id
from itjax.pipeline.inputs import Inputs
from itjax.pipeline.settings import Settings
from itjax.weights.sources import Weights


def fingerprint(inputs: Inputs, settings: Settings, weights: Weights) -> dict[str, str | int | float]:
    """Everything that determines the frames, to check on resuming that it is the same run."""
    request = inputs.request
    networks = json.dumps(asdict(weights.preset.networks), sort_keys=True)
    size = weights.preset.sizes[settings.size]
    sampler = replace(settings.sampler, shift=settings.sampler.shift_at(size))
    teacache = size.teacache if sampler.teacache_threshold is not None else "off"
    files = [request.source, *request.sounds.values(), *(request.masks or ()), settings.noise]
    return {
        "prompt": request.prompt,
        "files": ", ".join("none" if path is None else f"{Path(path).name} {content_id(path)}" for path in files),
        "audio_type": str(request.audio_type),
        "boxes": str(request.boxes),
        "sampler": str(asdict(sampler)),
        "TeaCache": str(teacache),
        "networks": hashlib.sha256(networks.encode()).hexdigest()[:16],
        "max_frame_num": settings.max_frames,
        "base_seed": settings.seed,
        "dtype": jnp.dtype(settings.dtype).name,
        "vae_dtype": jnp.dtype(settings.vae_dtype).name,
        "weights": hashlib.sha256(weights.identity.encode()).hexdigest()[:16],
        **({"tail": "silent"} if settings.silent_tail else {}),
        **({"branches": "in turn"} if settings.branches_in_turn else {}),  # runs from before there was a choice go on
    }
