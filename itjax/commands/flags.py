"""The flags of infer.py, both the official ones and our own. What they mean to the library: `from_flags`."""

import argparse
import warnings
from pathlib import Path

from itjax.config import STRATEGIES
from itjax.configs import PRESETS

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
NOTHING = "no effect (accepted for compatibility)"


def parser(program: str) -> argparse.ArgumentParser:
    """The parser with all flags, in groups."""
    p = argparse.ArgumentParser(
        program,
        usage="%(prog)s WEIGHTS INPUT --mode streaming --save_file FILE [options]\n"
        "  WEIGHTS: --checkpoint DIR, or --ckpt_dir DIR --wav2vec_dir DIR --infinitetalk_dir FILE, or --preset small\n"
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
    group.add_argument("--dit_path", **file, help="the DiT in one file: whole, or Wan's with --infinitetalk_dir")
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
        "--lora_alpha",
        choices=("ignore", "apply"),
        default="ignore",
        help="alpha in LoRA files: ignore (as the official code) or apply: scale by alpha / rank, as other tools do",
    )
    group.add_argument(
        "--verify",
        action="store_true",
        help="first compare the weights with their checksums: those of a converted checkpoint, those in .pth files, and the "
        "published ones of files downloaded with Hugging Face's tool (no others are known)",
    )
    group.add_argument(
        "--preset",
        help="preset for other network sizes: a name, or a Python file, which is run and defines PRESET; infer.py with the "
        "name of a preset whose weights come with the package (small) needs no other weights",
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


def _default(setting: str) -> str:
    """How a help text says that a setting is the preset's by default."""
    published, small = (getattr(PRESETS[name].sampler, setting) for name in ("infinitetalk-14b", "small"))
    return f"default: the preset's, {published}" + (f"; small: {small}" if small != published else "")


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
    group.add_argument("--frame_num", **number, help=f"frames per chunk, 4n+1 ({_default('frame_num')})")
    group.add_argument(
        "--max_frame_num",
        **number,
        default=1000,
        help="maximum number of frames when streaming (default %(default)s = 40 s)",
    )
    group.add_argument(
        "--motion_frame",
        **number,
        help="last frames of a chunk that the next one continues from, 4n+1 "
        f"({_default('motion_frames')}; 1 with i2v and fl2v)",
    )
    group.add_argument(
        "--strategy",
        choices=STRATEGIES,
        help="which frames condition a chunk: the source frame at its start and the previous frames (soft); or the "
        "paper's baselines: only the last generated frame (i2v), or the source frames at its start and end (fl2v); "
        f"{_default('strategy')}",
    )
    group.add_argument("--sample_steps", **number, help=f"Euler steps per chunk ({_default('steps')})")
    group.add_argument(
        "--sample_shift", **real, help="timestep shift (default: the preset's; 7 at 480, 11 at 720, small: 3)"
    )
    group.add_argument(
        "--sample_text_guide_scale",
        **real,
        help=f"guidance scale of the prompt ({_default('text_scale')}; 1.0 with a distilled LoRA)",
    )
    group.add_argument(
        "--sample_audio_guide_scale",
        **real,
        help=f"guidance scale of the speech ({_default('audio_scale')}; 2.0 with a distilled LoRA)",
    )
    group.add_argument(
        "--color_correction_strength",
        **real,
        help=f"colour correction towards the source, 0..1 ({_default('color_strength')})",
    )
    group.add_argument(
        "--silent_tail",
        action="store_true",
        help="let encoded silence follow the speech, not its end backwards: try it if the last words look wrong",
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
    group.add_argument(
        "--vae_dtype", choices=("float32", "bfloat16"), default="float32", help="the same for the VAE (default %(default)s)"
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
    group.add_argument(
        "--branches_in_turn",
        action="store_true",
        help="compute each layer for one guidance branch after another: slower, in less device memory",
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
