"""The trainer of the small speech encoder: its labels, its measure, and its runs."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file

from itjax.commands import convert
from itjax.config import Wav2Vec2Sizes
from itjax.errors import UserError
from itjax.models.wav2vec2 import Wav2Vec2
from itjax.pipeline.process import exact_float32
from itjax.synthetic.mouth import Mouth
from itjax.synthetic.phonemes import PHONEMES
from itjax.training.run import End
from itjax.training.speech_encoder import __main__ as command
from itjax.training.speech_encoder import disturb, readout, speech, step
from itjax.training.speech_encoder.run import train
from itjax.training.speech_encoder.settings import SpeechTraining
from itjax.training.speech_encoder.speech import Batches, Spoken
from itjax.weights import store
from itjax.weights.sources import preset_of

TINY = SpeechTraining(
    steps=4, batch=2, seconds=0.4, clips=4, first_clips=2, more_clips=1, clip_seconds=1.0, warmup_steps=1, log_every=1,
    validate_every=4, save_every=2, fit_clips=2, held_out_clips=2, held_out_seconds=1.0,
    sizes=Wav2Vec2Sizes(conv_width=8, width=16, layers=2, heads=2, mlp=24, position_kernel=4, position_groups=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a run of four steps."""
    folder = tmp_path_factory.mktemp("finished")
    assert train(TINY, folder) is End.DONE
    return folder


def initial():
    """A new state; made, and placed, as in a run: one program for all tests."""
    with exact_float32():
        return jax.device_put(step.initial_state(TINY), jax.devices()[0])


def lag_of(sound, jaw):
    """By how many frames the jaw is best moved back to follow the loudness."""
    loudness = np.log(np.mean(sound.reshape(-1, speech.SAMPLES_PER_FRAME) ** 2, axis=1) + 1e-5)
    alike = lambda lag: np.corrcoef(loudness[10:-10], np.roll(jaw, -lag)[10:-10])[0, 1]
    return max(range(-6, 7), key=alike)


def test_labels_are_at_their_sound():
    spoken = speech.make((0, 1), 8.0, "train")
    assert (len(spoken.samples), spoken.mouth.shape, spoken.phonemes.shape) == (128000, (200, 5), (200,))
    usual = lag_of(spoken.samples, spoken.mouth[:, 0])
    assert abs(usual) <= 1
    part = speech.cut(spoken, 7, 150)
    assert np.array_equal(part.samples, spoken.samples[7 * 640 : 157 * 640])
    assert lag_of(part.samples, part.mouth[:, 0]) == usual
    for k in (-3, 3):
        assert lag_of(part.samples, spoken.mouth[7 - k : 157 - k, 0]) == usual + k


def test_disturbing_does_not_move_the_sound():
    """Noise, tilt and a hidden band leave the correlation with the undisturbed sound at no delay."""
    samples = speech.make((0, 2), 1.0, "train").samples
    changed = np.asarray(jax.jit(disturb.disturbed)(jax.random.key(0), np.tile(samples, (6, 1))))
    for other in changed:
        alike = np.fft.irfft(np.fft.rfft(other) * np.fft.rfft(samples).conj())
        assert alike.argmax() == 0
    differences = [np.abs(one - other).max() for one, other in zip(changed, [samples, *changed[:-1]], strict=True)]
    assert min(differences) > 1e-3  # from the undisturbed sound, and each example in its own way


def test_hidden_spans_are_short():
    hidden = ~np.asarray(disturb.heard(jax.random.key(0), 200, 75))
    assert 0.02 < hidden.mean() < disturb.SPANS * disturb.MAX_SPAN / 75
    assert hidden.sum(1).max() <= disturb.SPANS * disturb.MAX_SPAN and len(np.unique(hidden, axis=0)) > 150
    assert hidden.any(0).all()  # each frame can be in one


def test_what_is_hidden_is_not_heard():
    """The features of hidden frames say nothing of them; where nothing is hidden, they are the usual ones."""
    network, parameters = step.Listener(TINY.sizes), initial().trainable
    sounds = np.random.default_rng(0).normal(size=(2, 16000)).astype(np.float32)
    masks = np.repeat([False, True], 2)[:, None] & np.ones(25, bool)
    encode = jax.jit(partial(network.apply, method="encode"))
    one, other, *usual = encode({"params": parameters}, np.tile(sounds, (2, 1)), masks)
    np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_allclose(usual, readout.encoded(TINY.sizes, parameters, sounds), atol=1e-5)  # float32
    assert np.abs(usual[0] - usual[1]).max() > 1e-2


def test_a_batch_depends_on_the_seed_and_its_number_only():
    """Not on which batches came before, and not on whether another process makes its clips. That one may be killed."""
    with Batches(TINY, 0) as one, Batches(TINY, 1) as other, Batches(replace(TINY, seed=1), 0) as seeded:
        one.batch(0)
        third = one.batch(3)
        assert third.samples.dtype == np.int16 and third.samples.shape == (2, 6400)
        assert all(np.array_equal(a, b) for a, b in zip(third, other.batch(3), strict=True))
        assert other.core_seconds > 0 and one.waited > 0
        assert not np.array_equal(third.samples, one.batch(2).samples)
        assert not np.array_equal(third.samples, seeded.batch(3).samples)
        other._made = [other._pool.submit(os._exit, 1)]
        other._kept.clear()
        with pytest.raises(UserError, match="was killed"):
            other.batch(3)


def test_read_out_finds_what_is_there():
    """A mixture of the truth is read out whole; noise, and a truth of other frames, not at all."""
    rng = np.random.default_rng(0)
    phonemes = rng.integers(0, 6, (2, 40, 50)).astype(np.int32)
    mouth = rng.random((2, 40, 50, 5)).astype(np.float32)
    fit, truth = (Spoken(np.zeros((40, 32000), np.float32), mouth[i], phonemes[i]) for i in range(2))
    mixing = rng.normal(size=(5 + 6, 24))
    mixed = [np.concatenate([mouth[i], np.eye(6)[phonemes[i]]], -1).reshape(2000, 11) @ mixing for i in range(2)]
    found = readout.read_out(mixed[0], fit, mixed[1], truth)
    assert set(found) == {*Mouth._fields, "phonemes"} and min(found.values()) > 0.999
    for features in (rng.normal(size=(2000, 24)), np.roll(mixed[1], 7, axis=0)):
        lost = readout.read_out(mixed[0], fit, features, truth)
        assert max(abs(lost[name]) for name in Mouth._fields) < 0.1 and lost["phonemes"] < 0.3  # one of six by chance
    assert readout.figures(np.zeros((2000, 5)), phonemes[1].reshape(-1), truth) == dict.fromkeys(found, 0.0) | {
        "phonemes": 1.0
    }


def test_steps_lower_the_loss():
    with Batches(TINY, 0) as batches:
        state, batch = initial(), batches.batch(0)
    program, losses = step.compile_step(TINY), []
    with exact_float32():
        for _ in range(8):  # on the same examples, which each step disturbs in another way
            state, metrics = program(state, batch)
            losses.append(float(metrics["loss"]))
    assert np.mean(losses[4:]) < 0.95 * np.mean(losses[:4]), losses


def test_rate_warms_up_and_falls_to_zero():
    rate = step.learning_rate(SpeechTraining(steps=1000))
    rates = [float(rate(count)) for count in (0, 49, 500, 1000)]
    cosine = 0.5 * (1 + np.cos(np.pi * 0.049))
    np.testing.assert_allclose(rates, np.array([0.01, 0.5 * cosine, 0.5, 0.0]) * 1.5e-3, rtol=1e-5, atol=1e-10)


def reports(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if "seconds" not in name and "waiting" not in name} for line in lines
    ]


def test_a_resumed_run_is_the_same_to_the_last_bit(finished, tmp_path, monkeypatch):
    """Ended by SIGTERM after its first step, and run again."""
    from itjax.training.preemption import Preemption

    with monkeypatch.context() as patch:
        patch.setattr(Preemption, "reached", lambda self, done: done >= 1)
        assert train(TINY, tmp_path) is End.PREEMPTED
    assert ocp.utils.checkpoint_steps(tmp_path / "checkpoints") == [1]
    assert train(TINY, tmp_path) is End.DONE
    assert reports(tmp_path) == reports(finished) and len(reports(finished)) == 4 + 1  # and a validation
    one, other = (store.open_checkpoint(folder / "checkpoints" / "4" / "state") for folder in (finished, tmp_path))
    assert one.names() == other.names() and "trainable/mouth/kernel" in one.names()
    for name in one.names():
        assert np.array_equal(one.tensors[name].read(()), other.tensors[name].read(())), name
    with pytest.raises(UserError, match=r"another --out folder:\n  small.seed: was 0, now 1$"):
        train(replace(TINY, seed=1), tmp_path)


def test_the_result_is_a_speech_encoder(finished, tmp_path):
    """Its weights are read as those of a converted checkpoint, and --to-torch gives them their published names."""
    folder = finished / "export"
    card = json.loads((folder / "card.json").read_text())
    assert (
        card["training"]["steps"] == 4 and set(card["figures"]) == {"validation", "test"} and card["gate"]["passed"] is False
    )
    assert set(card["figures"]["test"]) == {"features", "last_layer", "head"}
    assert (finished / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert preset_of(folder / "checkpoint").networks.wav2vec2 == TINY.sizes
    network = Wav2Vec2(TINY.sizes)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 6400)), 10))["params"]
    read = store.restore(folder / "checkpoint", {"wav2vec2": shapes})["wav2vec2"]
    assert jax.eval_shape(lambda: network.apply({"params": read}, jnp.ones((1, 6400)), 10)).shape == (1, 10, 2, 16)
    flags = ["--to-torch", "--checkpoint", str(folder / "checkpoint"), "--output", str(tmp_path / "torch")]
    assert convert.main(flags) == 0
    files = [path for path in (tmp_path / "torch").rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["model.safetensors"]
    name = "feature_projection.projection.weight"
    expected = np.asarray(read["feature_projection"]["projection"]["kernel"]).T
    assert np.array_equal(np.asarray(load_file(files[0])[name], np.float32), expected)


def test_features_are_those_of_the_network():
    """The trainer's normalisation of loudness is that of inference: the features of a louder clip are the same."""
    parameters = initial().trainable
    samples = speech.make((0, 3), 1.0, "train").samples
    normal = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    ours = readout.encoded(TINY.sizes, parameters, 3 * samples[None] + 0.01)
    reference = jax.jit(lambda x: Wav2Vec2(TINY.sizes).apply({"params": parameters["encoder"]}, x, 25))
    expected = reference(jnp.asarray(normal[None]))
    np.testing.assert_allclose(ours, expected, atol=2e-4)  # float32; 1e-7 beside the variance of a quieter and a louder clip
    assert parameters["phonemes"]["bias"].shape == (len(PHONEMES),)


@pytest.mark.parametrize("flag", ["--steps", "--minutes", "--batch"])
def test_the_command_names_a_wrong_flag(flag, tmp_path, capsys):
    assert command.main(["--out", str(tmp_path / "run"), flag, "0"]) == 2
    assert f"{flag} 0: must be " in capsys.readouterr().err and not (tmp_path / "run").exists()
