"""Requests, through infer.py: what is wrong with one is said before any weight is read; the official examples run."""

import json

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save_file

from itjax import configs
from itjax.commands import infer
from itjax.pipeline.inputs import open_inputs
from itjax.pipeline.request import Request

# -- speech of any length ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("samples", "reason"), [([], "no audio samples"), ([0.1, np.nan], "not a finite number")])
def test_speech_without_a_usable_sample(samples, reason, run, face, tmp_path, no_weights_read):
    soundfile.write(tmp_path / "voice.wav", np.asarray(samples), 16000, subtype="FLOAT")
    result = run("--image", face, "--audio", tmp_path / "voice.wav")
    assert result.status == 2
    assert "voice.wav" in result.said and reason in result.said


# -- two persons ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ([(0, 0, 97, 40)], "1 --bbox for 2 persons"),
        ([(0, 0, 97, 40), (0, 43, 97, 84)], "bbox of person 2: [0.0, 43.0, 97.0, 84.0]: it extends beyond"),
        ([(0, 0, 97, 40), (-1, 43, 97, 83)], "beyond the image: the image is 97 high and 83 wide"),
        ([(0, 0, 1, 1), (0, 43, 97, 83)], "Person 1: the box or mask is too small"),
        ([(0, 0, 97, 40), (0, 43, 97, "9" * 401)], "bbox of person 2: [0.0, 43.0, 97.0, inf]: four numbers are needed"),
        ([(0, 40, 97, 40), (0, 43, 97, 83)], "bbox of person 1: [0.0, 40.0, 97.0, 40.0]: the box is empty"),
        ([(0, 0, "nan", 40), (0, 43, 97, 83)], "four numbers are needed"),
    ],
)
def test_boxes_that_make_no_sense(boxes, reason, run, talk, face, no_weights_read):
    flags = [x for box in boxes for x in ("--bbox", *box)]
    result = run("--image", face, "--audio", talk(4), talk(5), *flags)
    assert result.status == 2
    assert reason in result.said


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ({"person1": [0, 0, 97, 40]}, "bbox names person1, but cond_audio names person1, person2"),
        ([[0, 0, 97, 40], [0, 43, 97, 83]], "bbox must be"),
        ({"person1": 5, "person2": [0, 43, 97, 83]}, "bbox.person1 must be [top, left, bottom, right], not 5"),
        (
            {"person1": [0, 0, 97, "x"], "person2": [0, 43, 97, 83]},
            'bbox.person1 must be [top, left, bottom, right], not [0, 0, 97, "x"]',
        ),
    ],
)
def test_boxes_that_make_no_sense_in_the_json(boxes, reason, run_json, talk, face, no_weights_read):
    sounds = {"person1": talk(4), "person2": talk(5)}
    result = run_json({"prompt": "two", "cond_video": face, "cond_audio": sounds, "bbox": boxes})
    assert result.status == 2
    assert reason in result.said


# -- the source -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["picture", "video", "sound"])
@pytest.mark.parametrize("state", ["cut off", "something else", "empty", "missing", "a folder"])
def test_unreadable_files_are_named(kind, state, run, talk, face, recordings, tmp_path, no_weights_read):
    media = recordings / "runs/media"
    whole = {"picture": media / "face.png", "video": media / "clip.mp4", "sound": media / "a_short.wav"}[kind]
    bad = tmp_path / f"bad{whole.suffix}"
    if state == "a folder":
        bad.mkdir()
    elif state != "missing":
        content = whole.read_bytes()
        bad.write_bytes({"cut off": content[: len(content) // 2], "something else": b"hello", "empty": b""}[state])
    source, sound = (face, bad) if kind == "sound" else (bad, talk(3))
    result = run("--video" if kind == "video" else "--image", source, "--audio", sound)
    assert result.status == 2
    assert str(bad) in result.said.splitlines()[-1]


# -- the input JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": None}, "missing key(s) prompt; the file has cond_video, cond_audio"),
        ({"cond_video": None}, "missing key(s) cond_video"),
        ({"cond_audio": None}, "missing key(s) cond_audio"),
        ({"cond_video": "no.png"}, "cond_video: there is no file no.png"),
        ({"cond_audio": {"person1": "no.wav"}}, "cond_audio.person1: there is no file no.wav"),
        ({"cond_audio": {}}, "cond_audio must be"),
        ({"cond_audio": {}, "tts_audio": {"text": "hello"}}, "text-to-speech (tts_audio) is not supported"),
        ({"prompt": 5}, "prompt must be a string, not 5"),
        ({"audio_type": ["para"]}, 'audio_type must be a string, not ["para"]'),
        ({"audio_type": "both"}, 'audio_type "both" is unknown'),
        ({"prompt": "\ud800"}, "prompt has half a surrogate pair"),
        ({"cond_video": "x" * 300}, "cond_video: there is no file xxx"),
        ({"cond_video": "a\0b"}, "cond_video: there is no file a"),
        ({"prompt": list(range(1000))}, "prompt must be a string, not [0, 1, 2,"),
        ({"bbox": {"person1": [0, 0, 10**400, 5]}}, "bbox.person1 must be [top, left, bottom, right], not [0, 0, 1000"),
    ],
)
def test_what_is_wrong_in_the_json_is_named(change, reason, run_json, talk, face, no_weights_read):
    content = {"prompt": "p", "cond_video": str(face), "cond_audio": {"person1": str(talk(3))}} | change
    result = run_json({key: value for key, value in content.items() if value is not None})
    assert result.status == 2
    assert reason in result.said


@pytest.mark.parametrize("content", ['{"prompt": "p",}', "[]", "", "\x00", "[" * 100_000, '{"prompt": "a", "prompt": "b"}'])
def test_a_broken_json_is_named(content, run_json, no_weights_read):
    result = run_json(content)
    assert result.status == 2
    assert "input.json" in result.said


def test_a_json_from_windows_with_keys_of_its_own(run_json, talk, face):
    content = {"prompt": "p", "cond_video": str(face), "cond_audio": {"person1": str(talk(3))}, "author": "me"}
    result = run_json("\ufeff" + json.dumps(content))
    assert len(result.video.frames) == 3
    assert "ignoring unknown key(s) author" in result.said


# -- flags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--size infinitetalk-540", "--size infinitetalk-540: must be one of infinitetalk-480, infinitetalk-720"),
        ("--frame_num 12", "--frame_num 12: must be 4n+1"),
        ("--motion_frame 4", "--motion_frame 4: must be 4n+1"),
        ("--motion_frame 5", "leaves no new frame"),
        ("--sample_steps 0", "--sample_steps 0"),
        ("--max_frame_num 0", "--max_frame_num 0"),
        ("--color_correction_strength 2", "--color_correction_strength 2.0"),
        ("--color_correction_strength nan", "--color_correction_strength nan: must be within 0..1"),
        ("--frame_num 1000001", "--frame_num 1000001: a chunk has at most 4093 frames"),
        ("--sample_steps 1000000000000", "--sample_steps 1000000000000: must be within 1..1000"),
        ("--sample_text_guide_scale 1e39", "--sample_text_guide_scale 1e+39: must be within -1000..1000"),
        ("--sample_audio_guide_scale nan", "--sample_audio_guide_scale nan"),
        ("--sample_shift 1e-30", "--sample_shift 1e-30: must be within 0.001..1000"),
        ("--sample_shift 1e300", "--sample_shift 1e+300"),
        ("--use_apg --apg_momentum 1e30", "--apg_momentum 1e+30: must be within -1..1"),
        ("--use_apg --apg_norm_threshold inf", "--apg_norm_threshold inf"),
        ("--use_teacache --teacache_thresh nan", "--teacache_thresh nan"),
        ("--base_seed 9223372036854775808", "--base_seed 9223372036854775808: must be less than 2^63"),
        ("--base_seed 100000000000000000000", "--base_seed 100000000000000000000"),
        ("--ulysses_size -1", "--ulysses_size -1: must be a number of devices"),
        ("--ring_size 1000000000000000000000", "--ring_size 1000000000000000000000"),
        ("--mask " + "m" * 300, "no such file"),
        ("--save_file " + "n" * 300, "cannot be written: File name too long"),
        ("--lora_scale 1 2", "0 LoRA files (--lora_dir) but 2 scales (--lora_scale)"),
        ("--audio_mode tts", "--audio_mode tts"),
        ("--task t2v-14B", "--task t2v-14B"),
        ("--resume --base_seed -1", "--resume needs"),
        ("--input_json input.json", "--input_json replaces --image"),
        ("--mode all", "argument --mode: invalid choice: 'all'"),
        ("--ckpt_dir nowhere", "--ckpt_dir nowhere"),
        ("--wav2vec_dir nowhere", "--wav2vec_dir: nowhere"),
        ("--infinitetalk_dir nowhere", "--infinitetalk_dir: nowhere"),
        ("--noise nowhere", "--noise nowhere cannot be read"),
        ("--lora_dir {modules}/vae.safetensors", "vae.safetensors matches no tensor of this network"),
        ("--lora_dir nowhere.safetensors", "nowhere.safetensors"),
    ],
)
def test_wrong_flags_are_named(flags, reason, run, talk, face, recordings, no_weights_read):
    result = run("--image", face, "--audio", talk(3), *flags.format(modules=recordings / "modules").split())
    assert result.status == 2
    assert reason in result.said


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"noise_0": (16, 2, 8, 6)}, "has no noise_1, but 2 chunks will be generated"),
        ({"noise_0": (16, 2, 8, 6), "noise_1": (16, 2, 6, 8)}, "noise_1 has shape [16, 2, 6, 8], expected [16, 2, 8, 6]"),
    ],
)
def test_noise_that_does_not_fit(shapes, reason, run, talk, face, tmp_path, no_weights_read):
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "noise.safetensors")
    result = run("--image", face, "--audio", talk(9), "--noise", tmp_path / "noise.safetensors")
    assert result.status == 2
    assert reason in result.said


WITHOUT_EFFECT = (
    "--quant fp8 --quant_dir infinitetalk_single_fp8.safetensors --offload_model False --num_persistent_param_in_dit 0 "
    "--t5_cpu --t5_fsdp --dit_fsdp --audio_save_dir save_audio --scene_seg"
)
LORA = (
    "--lora_dir {modules}/lora.safetensors --lora_scale 1.0 --sample_text_guide_scale 1.0 --sample_audio_guide_scale 2.0 "
    "--sample_steps 2 --sample_shift 2"
)
README = {
    "480": "--size infinitetalk-480",
    "720": "--size infinitetalk-720",
    "low memory": "--size infinitetalk-480 --num_persistent_param_in_dit 0",
    "eight GPUs": "--dit_fsdp --t5_fsdp --ulysses_size=8",
    "LoRA": LORA,
    "quantised": WITHOUT_EFFECT,
    "TeaCache and APG": "--use_teacache --use_apg --sample_steps 3",
}


@pytest.mark.parametrize("example", README)
def test_the_official_examples_run(example, run_json, talk, face, recordings):
    content = {"prompt": "p", "cond_video": str(face), "cond_audio": {"person1": str(talk(6))}}
    flags = README[example].format(modules=recordings / "modules").split()
    result = run_json(content, *flags)
    assert len(result.video.frames) == 6
    idle = {flag for flag in WITHOUT_EFFECT.split() if flag.startswith("--")} & set(flags)
    assert {line.split()[1] for line in result.said.splitlines() if "has no effect" in line} == idle
    assert ("--ulysses_size 8 does not divide the 4 attention heads. Splitting automatically" in result.said) == (
        "ulysses" in str(flags)
    )


def test_only_one_of_torchruns_processes_works(run, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "3")
    result = run("--input_json", "that_nobody_looks_at.json")
    assert (result.status, result.out, result.said) == (0, "", "")


@pytest.mark.parametrize(
    "variables", [{"SLURM_STEP_NUM_TASKS": "8"}, {"OMPI_COMM_WORLD_SIZE": "2"}, {"TPU_WORKER_HOSTNAMES": "t0,t1"}]
)
def test_several_processes_are_refused(variables, run, talk, face, monkeypatch, no_weights_read):
    """Each of them would write the same file."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = run("--image", face, "--audio", talk(3))
    assert result.status == 2 and f"several processes were started together ({name}={value}" in result.said


def test_a_process_alone_is_not_taken_for_several():
    alone = {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8", "TPU_WORKER_HOSTNAMES": "t0"}
    for environment in ({}, alone, {"TPU_WORKER_HOSTNAMES": "t0,t1", "TPU_PROCESS_BOUNDS": "1,1,1"}):
        infer.check_one_process(environment)


# -- the output -------------------------------------------------------------------------------------------------------


def test_places_that_cannot_be_written_are_said_before_the_work(run, talk, face, tmp_path, no_weights_read):
    (tmp_path / "folder.mp4").mkdir()
    voice = "--image", face, "--audio", talk(3)
    for name in ("no/out.mp4", "folder.mp4", "folder", "/proc/out.mp4"):
        result = run(*voice, save_file=name)
        assert result.status == 2
        assert str(tmp_path / name).removesuffix("/out.mp4") in result.said
    result = run(*voice, "--save_frames", tmp_path / "no/frames.npy")
    assert result.status == 2 and f"The folder {tmp_path}/no does not exist" in result.said


@pytest.mark.parametrize("given", ["out.mp4", "out", "link.mp4", "hard.mp4"])
@pytest.mark.parametrize("kind", ["source", "sound"])
def test_an_input_is_not_replaced_by_the_video(given, kind, run, talk, face, recordings, tmp_path, no_weights_read):
    content = (recordings / "runs/media/clip.mp4").read_bytes() if kind == "source" else talk(9).read_bytes()
    (tmp_path / "out.mp4").write_bytes(content)
    (tmp_path / "link.mp4").symlink_to("out.mp4")
    (tmp_path / "hard.mp4").hardlink_to(tmp_path / "out.mp4")
    inputs = (
        ("--video", tmp_path / "out.mp4", "--audio", talk(9))
        if kind == "source"
        else ("--image", face, "--audio", tmp_path / "out.mp4")
    )
    before = sorted(tmp_path.iterdir())
    result = run(*inputs, save_file=given)
    assert result.status == 2  # it was 0
    assert "is both an input and an output" in result.said and given in result.said
    assert (tmp_path / "out.mp4").read_bytes() == content and sorted(tmp_path.iterdir()) == before


def test_the_json_is_not_replaced_by_the_video(run, talk, face, tmp_path, no_weights_read):
    content = json.dumps({"prompt": "talk", "cond_video": str(face), "cond_audio": {"person1": str(talk(9))}})
    (tmp_path / "out.mp4").write_text(content)
    result = run("--input_json", tmp_path / "out.mp4")
    assert result.status == 2 and "out.mp4 is both an input and an output" in result.said  # it was 0
    assert (tmp_path / "out.mp4").read_text() == content


def test_a_mask_is_not_replaced_by_the_picture_of_the_persons(run, talk, face, tmp_path, no_weights_read):
    mask = tmp_path / "out.persons.png"
    mask.write_bytes(face.read_bytes())
    result = run("--image", face, "--audio", talk(9), talk(9, 8000), "--mask", mask, mask)
    assert result.status == 2 and f"{mask} is both an input and an output" in result.said
    assert mask.read_bytes() == face.read_bytes()


def test_noise_is_not_replaced_by_the_frames(run, talk, face, tmp_path, no_weights_read):
    save_file({"noise_0": np.zeros((16, 2, 8, 6), np.float32)}, tmp_path / "noise.npy")
    result = run("--image", face, "--audio", talk(3), "--noise", tmp_path / "noise.npy", "--save_frames", tmp_path / "noise")
    assert result.status == 2 and "noise.npy is both an input and an output" in result.said


def test_boxes_and_masks_go_with_the_names(face, talk):
    """From Python, persons come in any order; their tracks are sorted by name."""
    table = configs.PRESETS["tiny"].sizes["infinitetalk-480"].table
    boxes = {"man": [0, 0, 97, 30], "woman": [0, 50, 97, 83]}
    sounds = {"man": talk(4), "woman": talk(12)}
    opened = []
    for names in (("man", "woman"), ("woman", "man")):
        request = Request("two", face, {name: sounds[name] for name in names}, boxes=[boxes[name] for name in names])
        with pytest.warns(UserWarning, match="padded with silence"):
            opened.append(open_inputs(request, table))
    for one, other in zip(*(inputs.tracks for inputs in opened), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(opened[0].masks, opened[1].masks)
    columns = np.arange(opened[0].masks.shape[2])
    left, right = (mask.any(0) @ columns / mask.any(0).sum() for mask in opened[0].masks[:2])
    man, woman = (track[4 * 640 :].any() for track in opened[0].tracks)
    assert left < right and woman and not man


def test_one_set_of_weights(run, talk, face, checkpoint, tmp_path):
    voice = "--image", face, "--audio", talk(3)
    result = run(*voice, "--checkpoint", checkpoint, "--infinitetalk_dir", tmp_path, "--dit_path", tmp_path)
    assert result.status == 2
    assert "--checkpoint already names all weights: leave out either it or" in result.said
    assert "--infinitetalk_dir, --dit_path" in result.said
