"""The command line of infer.py: the official one, and what we add. Turns flags into settings; runs nothing."""

import argparse
import time
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp

from itjax.config import STRATEGIES, Apg, Preset, Sampler
from itjax.errors import UserError
from itjax.pipeline.dub import Settings
from itjax.pipeline.request import Request, from_json

TASK = "infinitetalk-14B"
# official flags that ask for what is done anyway here, or cannot be: (flag, what happens instead)
WITHOUT_EFFECT = {
    "quant": "quantised weights are not read; the dense ones of --ckpt_dir and --infinitetalk_dir are used",
    "quant_dir": "quantised weights are not read; the dense ones of --ckpt_dir and --infinitetalk_dir are used",
    "offload_model": "the text encoder leaves the device before the DiT comes; nothing else is moved",
    "num_persistent_param_in_dit": "parameters stay on the devices; several devices share them",
    "t5_cpu": "the text encoder leaves the device before the DiT comes",
    "dit_fsdp": "parameters are always split over all devices",
    "t5_fsdp": "parameters are always split over all devices",
    "audio_save_dir": "speech features are not written to disk",
    "scene_seg": "scenes are not told apart; the source video is followed as it is",
}
NOTHING = "no effect here"


def parser() -> argparse.ArgumentParser:
    """All flags, in groups."""
    p = argparse.ArgumentParser(
        "infer.py",
        usage="%(prog)s WEIGHTS WHAT --mode streaming --save_file FILE [options]\n"
        "  WEIGHTS: --checkpoint DIR, or --ckpt_dir DIR --wav2vec_dir DIR --infinitetalk_dir FILE\n"
        "  WHAT:    --input_json FILE, or --image FILE (--video FILE) --audio FILE [FILE] --prompt TEXT",
        description="A picture or a video and a voice in, a talking video out.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=36, width=110),
    )
    weights = p.add_argument_group("weights: a converted checkpoint, or the official files")
    weights.add_argument("--checkpoint", type=Path, metavar="DIR", help="made by convert_weights.py, or a training run")
    add_official_files(weights)
    weights.add_argument("--task", default=TASK, help=f"only {TASK}")
    _add_what(p.add_argument_group("what: an input JSON, or plain flags"))
    _add_sampling(p.add_argument_group("sampling"))
    _add_output(p.add_argument_group("output"))
    _add_devices(p.add_argument_group("devices"))
    return p


def add_official_files(group) -> None:
    """The flags that name the official files (shared with convert_weights.py)."""
    group.add_argument("--ckpt_dir", type=Path, metavar="DIR", help="folder of the Wan2.1-I2V-14B-480P files")
    group.add_argument("--wav2vec_dir", type=Path, metavar="DIR", help="folder of chinese-wav2vec2-base")
    file = {"type": Path, "metavar": "FILE"}
    group.add_argument("--infinitetalk_dir", **file, help="the infinitetalk.safetensors file (single or multi)")
    group.add_argument("--dit_path", **file, help="a whole DiT in one file instead of the DiT's official ones")
    group.add_argument("--lora_dir", **file, nargs="+", action="extend", default=[], help="one or more LoRA files")
    group.add_argument(
        "--lora_scale", type=float, metavar="X", nargs="+", action="extend", default=[], help="of each file (1.2)"
    )
    group.add_argument("--preset", help="sizes of other networks: a name, or a Python file with PRESET")


def _add_what(group) -> None:
    file = {"type": Path, "metavar": "FILE"}
    group.add_argument("--input_json", **file, help="prompt, cond_video, cond_audio, audio_type, bbox, mask")
    source = group.add_mutually_exclusive_group()
    source.add_argument("--image", **file, help="a picture")
    source.add_argument("--video", **file, help="a video to dub")
    group.add_argument("--audio", **file, nargs="+", help="a sound file (or video with sound) a person")
    group.add_argument("--prompt", metavar="TEXT", help="what is to be seen: who, doing what, where")
    group.add_argument("--audio_type", choices=("para", "add"), help="two persons: together, or one after the other")
    group.add_argument(
        "--bbox", type=float, nargs=4, action="append", metavar=("TOP", "LEFT", "BOTTOM", "RIGHT"),
        help="where a person is, in pixels of the picture; once a person",
    )  # fmt: skip
    group.add_argument("--mask", **file, nargs="+", help="a mask picture a person, in place of --bbox")
    group.add_argument("--audio_mode", default="localfile", choices=("localfile", "tts"), help="only localfile")
    group.add_argument("--audio_save_dir", metavar="DIR", help=NOTHING)
    group.add_argument("--scene_seg", action="store_true", default=None, help=NOTHING)


def _add_sampling(group) -> None:
    number = {"type": int, "metavar": "N"}
    real = {"type": float, "metavar": "X"}
    group.add_argument("--size", default="infinitetalk-480", help="or infinitetalk-720; the shape follows the picture's")
    group.add_argument("--mode", default="clip", choices=("clip", "streaming"), help="one chunk (default), or all")
    group.add_argument("--frame_num", **number, default=81, help="frames a chunk, 4n+1 (%(default)s)")
    group.add_argument("--max_frame_num", **number, default=1000, help="limit when streaming (%(default)s = 40 s)")
    group.add_argument("--motion_frame", **number, help="frames a chunk goes on from, 4n+1 (9; 1 with i2v and fl2v)")
    group.add_argument(
        "--strategy",
        default="soft",
        choices=STRATEGIES,
        help="what steers a chunk: the source's frame at its start and the motion before it (soft, the default), or the "
        "paper's baselines: the last generated frame alone (i2v), the source's frames at its start and end (fl2v)",
    )
    group.add_argument("--sample_steps", **number, default=40, help="Euler steps a chunk (%(default)s)")
    group.add_argument("--sample_shift", **real, help="of the time steps (7 at 480, 11 at 720)")
    group.add_argument("--sample_text_guide_scale", **real, default=5.0, help="(%(default)s; 1.0 with a distilled LoRA)")
    group.add_argument("--sample_audio_guide_scale", **real, default=4.0, help="(%(default)s; 2.0 with a distilled LoRA)")
    group.add_argument(
        "--color_correction_strength",
        **real,
        default=1.0,
        help="how far colours are held to the source's, 0..1 (%(default)s)",
    )
    group.add_argument("--use_teacache", action="store_true", help="leave out steps that would change little")
    group.add_argument("--teacache_thresh", **real, default=0.2, help="higher leaves out more (%(default)s)")
    group.add_argument("--use_apg", action="store_true", help="adaptive projected guidance")
    group.add_argument("--apg_momentum", **real, default=-0.75, help="(%(default)s)")
    group.add_argument("--apg_norm_threshold", **real, default=55.0, help="(%(default)s)")
    group.add_argument("--base_seed", **number, default=42, help="of the noise (%(default)s); negative: random")
    group.add_argument("--noise", type=Path, metavar="FILE", help="safetensors with noise_0, noise_1 ... [16, T, h, w]")
    group.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16, on CPU float32")


def _add_output(group) -> None:
    file = {"type": Path, "metavar": "FILE"}
    group.add_argument("--save_file", **file, help="name of the video, with or without .mp4")
    group.add_argument("--save_frames", **file, help=".npy for the frames, float32 [F, H, W, 3] in -1..1")
    group.add_argument("--resume", action="store_true", help="go on at the first unfinished chunk")


def _add_devices(group) -> None:
    number = {"type": int, "metavar": "N"}
    group.add_argument("--ulysses_size", **number, default=0, help="parts of the heads; 0 (default): chosen")
    group.add_argument(
        "--ring_size", **number, default=0, help="parts of the queries in self-attention; 0 (default): chosen"
    )
    on_or_off = lambda text: text.lower() in ("true", "1", "yes", "y", "t")
    group.add_argument("--offload_model", type=on_or_off, metavar="BOOL", help=NOTHING)
    group.add_argument("--num_persistent_param_in_dit", **number, help=NOTHING)
    for flag in ("--t5_cpu", "--t5_fsdp", "--dit_fsdp"):
        group.add_argument(flag, action="store_true", default=None, help=NOTHING)
    group.add_argument("--quant", metavar="TYPE", help=NOTHING)
    group.add_argument("--quant_dir", metavar="FILE", help=NOTHING)


def warn_without_effect(args: argparse.Namespace) -> None:
    """One warning for each official flag that was given and changes nothing here."""
    for flag, instead in WITHOUT_EFFECT.items():
        if getattr(args, flag) is not None:
            warnings.warn(f"--{flag} has no effect: {instead}", stacklevel=2)


def request_of(args: argparse.Namespace) -> Request:
    """The request in the input JSON or the plain flags.

    Raises:
        UserError: where neither is whole.
    """
    if args.audio_mode == "tts":
        raise UserError("--audio_mode tts: speech from text is not made here; give sound files")
    source = args.image or args.video
    if args.input_json is not None:
        if source or args.audio or args.prompt or args.bbox or args.mask or args.audio_type:
            raise UserError(
                "--input_json says all of --image, --video, --audio, --prompt, --bbox, --mask: give one or the other"
            )
        return from_json(args.input_json)
    if not source or not args.audio:
        raise UserError("nothing to do: give --input_json, or --image or --video with --audio (and --prompt)")
    sounds: dict[str, Path | None] = {f"person{i}": path for i, path in enumerate(args.audio, 1)}
    for flag, values in (("--bbox", args.bbox), ("--mask", args.mask)):
        if values and len(values) != len(sounds):
            raise UserError(f"{len(values)} {flag} for {len(sounds)} persons (--audio)")
    flags = {"--image": [args.image], "--video": [args.video], "--audio": args.audio, "--mask": args.mask or []}
    for flag, path in ((flag, path) for flag, paths in flags.items() for path in paths if path):
        if not path.exists():
            raise UserError(f"{flag} {path}: there is no such file")
    return Request(args.prompt or "", source, sounds, args.audio_type, args.bbox, args.mask)


def loras_of(args: argparse.Namespace) -> list[tuple[Path, float]]:
    """(file, scale) of each LoRA.

    Raises:
        UserError: where their numbers differ.
    """
    files, scales = args.lora_dir, args.lora_scale or [1.2]
    scales = scales * len(files) if len(scales) == 1 else scales
    if len(scales) != len(files):
        raise UserError(f"{len(files)} LoRA files (--lora_dir) but {len(scales)} scales (--lora_scale)")
    return list(zip(files, scales, strict=True))


def settings_of(args: argparse.Namespace, preset: Preset, request: Request) -> Settings:
    """The settings that the flags ask for.

    Raises:
        UserError: for values that make no sense.
    """
    if args.size not in preset.sizes:
        raise UserError(f"--size {args.size}: {preset.name} has {', '.join(preset.sizes)}")
    if args.max_frame_num < 1:
        raise UserError(f"--max_frame_num {args.max_frame_num}: at least 1")
    if args.resume and (args.save_file is None or args.base_seed < 0):
        raise UserError("--resume needs the --save_file and the --base_seed (not negative) of the run to go on with")
    size = preset.sizes[args.size]
    usual = 9 if args.strategy == "soft" else 1
    motion_frames = usual if args.motion_frame is None else args.motion_frame
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
    on_cpu = jax.default_backend() == "cpu"
    return Settings(
        sampler=sampler,
        size=size,
        max_frames=args.frame_num if args.mode == "clip" else args.max_frame_num,
        seed=args.base_seed if args.base_seed >= 0 else time.time_ns() % 2**31,
        dtype=jnp.dtype(args.dtype or ("float32" if on_cpu else "bfloat16")),
        save_file=args.save_file or _default_name(args, request),
        resume=args.resume,
        noise=args.noise,
        save_frames=args.save_frames,
    )


def _default_name(args: argparse.Namespace, request: Request) -> Path:
    """Made from task, size, prompt and time, as the official code does."""
    words = "".join(c if c.isalnum() else "_" for c in request.prompt)[:50]
    return Path(f"{args.task}_{args.size}_{words}_{time.strftime('%Y%m%d_%H%M%S')}")
