"""The flags of infer.py, both the official ones and our own, and their conversion to settings."""

import argparse
import os
import time
import warnings
from pathlib import Path

import jax.numpy as jnp

from itjax.config import STRATEGIES, Apg, Preset, Sampler
from itjax.errors import UserError
from itjax.pipeline.process import default_dtype
from itjax.pipeline.request import Request, from_json
from itjax.pipeline.settings import Settings

TASK = "infinitetalk-14B"
# official flags that have no effect, because their behaviour is always on or not supported: {flag: what happens instead}
WITHOUT_EFFECT = {
    "quant": "quantised weights are not supported; the dense ones from --ckpt_dir and --infinitetalk_dir are used",
    "quant_dir": "quantised weights are not supported; the dense ones from --ckpt_dir and --infinitetalk_dir are used",
    "offload_model": "the text encoder is freed before the DiT is loaded; nothing else is offloaded",
    "num_persistent_param_in_dit": "parameters stay on the devices, sharded over all of them",
    "t5_cpu": "the text encoder is freed before the DiT is loaded",
    "dit_fsdp": "parameters are always sharded over all devices",
    "t5_fsdp": "parameters are always sharded over all devices",
    "audio_save_dir": "speech features are not written to disk",
    "scene_seg": "scene changes are not detected; the source video is used as it is",
}
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
}
MAX_DEVICES = 2**16
MAX_NAME_BYTES = 150  # of the prompt in a default file name, of 255 in all
NOTHING = "no effect (accepted for compatibility)"


def parser(program: str) -> argparse.ArgumentParser:
    """The parser with all flags, in groups."""
    p = argparse.ArgumentParser(
        program,
        usage="%(prog)s WEIGHTS INPUT --mode streaming --save_file FILE [options]\n"
        "  WEIGHTS: --checkpoint DIR, or --ckpt_dir DIR --wav2vec_dir DIR --infinitetalk_dir FILE\n"
        "  INPUT:   --input_json FILE, or --image FILE (--video FILE) --audio FILE [FILE] --prompt TEXT",
        description="Generates a talking video from an image or video and speech.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=36, width=110),
    )
    weights = p.add_argument_group("weights: a converted checkpoint, or the official files")
    weights.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="folder made by convert_weights.py, or a training run"
    )
    add_official_files(weights)
    weights.add_argument("--task", default=TASK, help=f"only {TASK} is supported")
    _add_inputs(p.add_argument_group("input: a JSON file, or individual flags"))
    _add_sampling(p.add_argument_group("sampling"))
    _add_output(p.add_argument_group("output"))
    _add_devices(p.add_argument_group("devices"))
    return p


def add_official_files(group) -> None:
    """Adds the flags for the official files (shared with convert_weights.py)."""
    group.add_argument("--ckpt_dir", type=Path, metavar="DIR", help="Wan2.1-I2V-14B-480P folder")
    group.add_argument("--wav2vec_dir", type=Path, metavar="DIR", help="chinese-wav2vec2-base folder")
    file = {"type": Path, "metavar": "FILE"}
    group.add_argument("--infinitetalk_dir", **file, help="infinitetalk.safetensors (single or multi)")
    group.add_argument("--dit_path", **file, help="a complete DiT in one file, instead of the official files")
    group.add_argument("--lora_dir", **file, nargs="+", action="extend", default=[], help="one or more LoRA files")
    group.add_argument(
        "--lora_scale",
        type=float,
        metavar="X",
        nargs="+",
        action="extend",
        default=[],
        help="scale of each LoRA file (default 1.2)",
    )
    group.add_argument(
        "--verify",
        action="store_true",
        help="first compare the weights with their checksums: those of a converted checkpoint, those in .pth files, and the "
        "published ones of files downloaded with Hugging Face's tool (no others are known)",
    )
    group.add_argument(
        "--preset", help="preset for other network sizes: a name, or a Python file, which is run and defines PRESET"
    )


def _add_inputs(group) -> None:
    file = {"type": Path, "metavar": "FILE"}
    group.add_argument("--input_json", **file, help="JSON with prompt, cond_video, cond_audio, audio_type, bbox, mask")
    source = group.add_mutually_exclusive_group()
    source.add_argument("--image", **file, help="source image")
    source.add_argument("--video", **file, help="source video to dub")
    group.add_argument("--audio", **file, nargs="+", help="one audio file (or video with audio) per person")
    group.add_argument("--prompt", metavar="TEXT", help="description of the video: who, doing what, where")
    group.add_argument(
        "--audio_type", choices=("para", "add"), help="two persons: simultaneously (para) or one after the other (add)"
    )
    group.add_argument(
        "--bbox", type=float, nargs=4, action="append", metavar=("TOP", "LEFT", "BOTTOM", "RIGHT"),
        help="bounding box of a person in pixels of the source; once per person",
    )  # fmt: skip
    group.add_argument("--mask", **file, nargs="+", help="one mask image per person, instead of --bbox")
    group.add_argument("--audio_mode", default="localfile", choices=("localfile", "tts"), help="only localfile is supported")
    group.add_argument("--audio_save_dir", metavar="DIR", help=NOTHING)
    group.add_argument("--scene_seg", action="store_true", default=None, help=NOTHING)


def _add_sampling(group) -> None:
    number = {"type": int, "metavar": "N"}
    real = {"type": float, "metavar": "X"}
    group.add_argument(
        "--size",
        default="infinitetalk-480",
        help="infinitetalk-480 (default) or infinitetalk-720; the aspect ratio is that of the source",
    )
    group.add_argument(
        "--mode",
        default="clip",
        choices=("clip", "streaming"),
        help="generate one chunk (clip, default) or the whole video (streaming)",
    )
    group.add_argument("--frame_num", **number, default=81, help="frames per chunk, 4n+1 (default %(default)s)")
    group.add_argument(
        "--max_frame_num",
        **number,
        default=1000,
        help="maximum number of frames when streaming (default %(default)s = 40 s)",
    )
    group.add_argument(
        "--motion_frame",
        **number,
        help="last frames of a chunk that the next one continues from, 4n+1 (default 9; 1 with i2v and fl2v)",
    )
    group.add_argument(
        "--strategy",
        default="soft",
        choices=STRATEGIES,
        help="which frames condition a chunk: the source frame at its start and the previous frames (soft, the default); or "
        "the paper's baselines: only the last generated frame (i2v), or the source frames at its start and end (fl2v)",
    )
    group.add_argument("--sample_steps", **number, default=40, help="Euler steps per chunk (default %(default)s)")
    group.add_argument("--sample_shift", **real, help="timestep shift (default 7 at 480, 11 at 720)")
    group.add_argument(
        "--sample_text_guide_scale",
        **real,
        default=5.0,
        help="guidance scale of the prompt (default %(default)s; 1.0 with a distilled LoRA)",
    )
    group.add_argument(
        "--sample_audio_guide_scale",
        **real,
        default=4.0,
        help="guidance scale of the speech (default %(default)s; 2.0 with a distilled LoRA)",
    )
    group.add_argument(
        "--color_correction_strength",
        **real,
        default=1.0,
        help="colour correction towards the source, 0..1 (default %(default)s)",
    )
    group.add_argument("--use_teacache", action="store_true", help="skip the blocks in steps that would change little")
    group.add_argument("--teacache_thresh", **real, default=0.2, help="higher skips more (default %(default)s)")
    group.add_argument("--use_apg", action="store_true", help="adaptive projected guidance")
    group.add_argument("--apg_momentum", **real, default=-0.75, help="momentum of --use_apg (default %(default)s)")
    group.add_argument(
        "--apg_norm_threshold", **real, default=55.0, help="norm threshold of --use_apg (default %(default)s)"
    )
    group.add_argument("--base_seed", **number, default=42, help="seed of the noise (default %(default)s); negative: random")
    group.add_argument("--noise", type=Path, metavar="FILE", help="safetensors file with noise_0, noise_1 ... [16, T, h, w]")
    group.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="dtype of matrix products (default bfloat16, on CPU float32)"
    )


def _add_output(group) -> None:
    file = {"type": Path, "metavar": "FILE"}
    group.add_argument("--save_file", **file, help="output video, with or without .mp4")
    group.add_argument("--save_frames", **file, help="also save the frames as .npy, float32 [F, H, W, 3] in -1..1")
    group.add_argument("--resume", action="store_true", help="continue an interrupted run at its first unfinished chunk")


def _add_devices(group) -> None:
    number = {"type": int, "metavar": "N"}
    group.add_argument(
        "--ulysses_size", **number, default=0, help="devices that split the attention heads; 0 (default): automatic"
    )
    group.add_argument(
        "--ring_size", **number, default=0, help="devices that split the queries in self-attention; 0 (default): automatic"
    )
    boolean = lambda text: text.lower() in ("true", "1", "yes", "y", "t")
    group.add_argument("--offload_model", type=boolean, metavar="BOOL", help=NOTHING)
    group.add_argument("--num_persistent_param_in_dit", **number, help=NOTHING)
    for flag in ("--t5_cpu", "--t5_fsdp", "--dit_fsdp"):
        group.add_argument(flag, action="store_true", default=None, help=NOTHING)
    group.add_argument("--quant", metavar="TYPE", help=NOTHING)
    group.add_argument("--quant_dir", metavar="FILE", help=NOTHING)


def warn_without_effect(args: argparse.Namespace) -> None:
    """Warns about each given official flag that has no effect."""
    for flag, instead in WITHOUT_EFFECT.items():
        if getattr(args, flag) is not None:
            warnings.warn(f"--{flag} has no effect: {instead}", stacklevel=2)


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


def loras_of(args: argparse.Namespace) -> list[tuple[Path, float]]:
    """(file, scale) of each LoRA.

    Raises:
        UserError: if the numbers of files and scales differ.
    """
    files, scales = args.lora_dir, args.lora_scale or [1.2]
    scales = scales * len(files) if len(scales) == 1 else scales
    if len(scales) != len(files):
        raise UserError(f"{len(files)} LoRA files (--lora_dir) but {len(scales)} scales (--lora_scale)")
    return list(zip(files, scales, strict=True))


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
    size = preset.sizes[args.size]
    default_motion_frames = 9 if args.strategy == "soft" else 1
    motion_frames = default_motion_frames if args.motion_frame is None else args.motion_frame
    sampler = Sampler(
        frame_num=args.frame_num,
        motion_frames=motion_frames,
        steps=args.sample_steps,
        shift=size.shift if args.sample_shift is None else args.sample_shift,
        text_scale=args.sample_text_guide_scale,
        audio_scale=args.sample_audio_guide_scale,
        color_strength=args.color_correction_strength,
        apg=Apg(args.apg_momentum, args.apg_norm_threshold) if args.use_apg else None,
        teacache_threshold=args.teacache_thresh if args.use_teacache else None,
        strategy=args.strategy,
    )
    return Settings(
        sampler=sampler,
        size=args.size,
        max_frames=args.frame_num if args.mode == "clip" else args.max_frame_num,
        seed=args.base_seed if args.base_seed >= 0 else time.time_ns() % 2**31,
        dtype=jnp.dtype(args.dtype or default_dtype()),
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
