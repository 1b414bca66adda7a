"""From the flags of infer.py to the library's values: the request, the settings, the LoRA files."""

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp

from itjax.config import Apg, Preset
from itjax.errors import UserError
from itjax.pipeline.process import default_dtype
from itjax.pipeline.request import Request, from_json
from itjax.pipeline.settings import Settings
from itjax.weights.lora import LoraFile

# {setting of the library: its flag}, for error messages
FLAGS = {
    "size": "--size",
    "frame_num": "--frame_num",
    "motion_frames": "--motion_frame",
    "strategy": "--strategy",
    "steps": "--sample_steps",
    "shift": "--sample_shift",
    "text_scale": "--sample_text_guide_scale",
    "audio_scale": "--sample_audio_guide_scale",
    "color_strength": "--color_correction_strength",
    "teacache_threshold": "--teacache_thresh",
    "apg.momentum": "--apg_momentum",
    "apg.norm_threshold": "--apg_norm_threshold",
    "seed": "--base_seed",
    "noise": "--noise",
    "dtype": "--dtype",
    "vae_dtype": "--vae_dtype",
    "branches_in_turn": "--branches_in_turn",
}
# settings whose flag, if it is not given, is the preset's
FROM_PRESET = ("frame_num", "motion_frames", "strategy", "steps", "text_scale", "audio_scale", "color_strength")
MAX_DEVICES = 2**16
MAX_NAME_BYTES = 150  # of the prompt in a default file name, of 255 in all


def request_of(args: argparse.Namespace) -> Request:
    """The request, from the input JSON or from individual flags.

    Raises:
        UserError: if the input is incomplete or contradictory, or a file is missing.
    """
    if args.audio_mode == "tts":
        raise UserError("--audio_mode tts: text-to-speech is not supported; provide audio files")
    source = args.image or args.video
    if args.input_json is not None:
        if source or args.audio or args.prompt or args.bbox or args.mask or args.audio_type:
            raise UserError(
                "--input_json replaces --image, --video, --audio, --prompt, --audio_type, --bbox and --mask: use either the "
                "JSON file or these flags"
            )
        return from_json(args.input_json)
    if not source or not args.audio:
        raise UserError("no input: specify --input_json, or --image or --video together with --audio (and --prompt)")
    sounds: dict[str, Path | None] = {f"person{i}": path for i, path in enumerate(args.audio, 1)}
    for flag, values in (("--bbox", args.bbox), ("--mask", args.mask)):
        if values and len(values) != len(sounds):
            raise UserError(f"{len(values)} {flag} for {len(sounds)} persons (--audio)")
    flags = {"--image": [args.image], "--video": [args.video], "--audio": args.audio, "--mask": args.mask or []}
    for flag, path in ((flag, path) for flag, paths in flags.items() for path in paths if path):
        if not os.path.exists(path):  # Path.exists raises an error for a name that is too long
            raise UserError(f"{flag} {path}: no such file")
    return Request(args.prompt or "", source, sounds, args.audio_type, args.bbox, args.mask)


def loras_of(args: argparse.Namespace) -> list[LoraFile]:
    """The LoRA files, each with its scale.

    Raises:
        UserError: if the numbers of files and scales differ.
    """
    files, scales = args.lora_dir, args.lora_scale or [1.2]
    scales = scales * len(files) if len(scales) == 1 else scales
    if len(scales) != len(files):
        raise UserError(f"{len(files)} LoRA files (--lora_dir) but {len(scales)} scales (--lora_scale)")
    return [LoraFile(path, scale, args.lora_alpha == "apply") for path, scale in zip(files, scales, strict=True)]


def settings_of(args: argparse.Namespace, preset: Preset, request: Request) -> Settings:
    """The settings given by the flags.

    Raises:
        UserError: if a value is invalid.
    """
    if args.size not in preset.sizes:
        raise UserError(f"--size {args.size}: must be one of {', '.join(preset.sizes)} (preset {preset.name})")
    if args.max_frame_num < 1:
        raise UserError(f"--max_frame_num {args.max_frame_num}: must be at least 1")
    if args.resume and (args.save_file is None or args.base_seed < 0):
        raise UserError("--resume needs the --save_file and the (non-negative) --base_seed of the run to continue")
    usual = preset.sampler
    given = {field: getattr(args, FLAGS[field][2:]) for field in FROM_PRESET}
    given = {field: value for field, value in given.items() if value is not None}
    if given.get("strategy", usual.strategy) != "soft":
        given.setdefault("motion_frames", 1)
    sampler = replace(
        usual,
        **given,
        shift=preset.sizes[args.size].shift if args.sample_shift is None else args.sample_shift,
        apg=Apg(args.apg_momentum, args.apg_norm_threshold) if args.use_apg else usual.apg,
        teacache_threshold=args.teacache_thresh if args.use_teacache else usual.teacache_threshold,
    )
    return Settings(
        sampler=sampler,
        size=args.size,
        max_frames=sampler.frame_num if args.mode == "clip" else args.max_frame_num,
        seed=args.base_seed if args.base_seed >= 0 else time.time_ns() % 2**31,
        dtype=jnp.dtype(args.dtype or default_dtype()),
        vae_dtype=jnp.dtype(args.vae_dtype),
        silent_tail=args.silent_tail,
        branches_in_turn=args.branches_in_turn,
        save_file=args.save_file or _default_name(args, request),
        resume=args.resume,
        noise=args.noise,
        save_frames=args.save_frames,
    )


def check_devices(args: argparse.Namespace) -> None:
    """Checks the flags that split the work over devices.

    Raises:
        UserError: if one is not a number of devices. Whether they match the devices is checked later.
    """
    for flag, value in (("--ulysses_size", args.ulysses_size), ("--ring_size", args.ring_size)):
        if not 0 <= value <= MAX_DEVICES:
            raise UserError(f"{flag} {value}: must be a number of devices, or 0 for automatic")


def _default_name(args: argparse.Namespace, request: Request) -> Path:
    """A file name made of task, size, prompt and time, as in the official code, but never longer than file names may be."""
    words = "".join(c if c.isalnum() else "_" for c in request.prompt)[:50]
    words = words.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    return Path(f"{args.task}_{args.size}_{words}_{time.strftime('%Y%m%d_%H%M%S')}")
