import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from itjax.conditioning import speech_features as module
from itjax.conditioning.speech_features import (
    LONG_TRACK_WINDOWS,
    SAMPLE_RATE,
    SpeechFeatures,
    WindowSizes,
    frame_count,
    speech_features,
)
from itjax.config import Wav2Vec2Sizes
from itjax.models.wav2vec2 import Wav2Vec2
from itjax.weights import mapping
from itjax.weights.tables.wav2vec2 import TABLE

SIZES = Wav2Vec2Sizes(conv_width=16, width=24, layers=3, heads=2, mlp=40, position_kernel=16, position_groups=4)
MODEL = Wav2Vec2(SIZES)
SMALL = WindowSizes(core=50, context=25)


@pytest.fixture(scope="module")
def params(recordings):
    shapes = jax.eval_shape(lambda: MODEL.init(jax.random.key(0), jnp.zeros((1, 16000)), 25))["params"]
    return mapping.to_jax(TABLE, shapes, load_file(recordings / "checkpoint/chinese-wav2vec2-base/model.safetensors"))


@pytest.fixture(scope="module")
def deaf(params):
    """Parameters with which attention adds nothing, so that a frame hears no further than the convolutions do."""
    block = params["encoder"]["blocks"]
    out = jax.tree.map(np.zeros_like, block["out"])
    return params | {"encoder": params["encoder"] | {"blocks": block | {"out": out}}}


@pytest.fixture(scope="module")
def speech(module_recording):
    """Some ten seconds: the recorded tracks after each other, at several loudnesses."""
    tracks = [module_recording("wav2vec2")[f"outputs.speech_{name}"] for name in ("a16000", "b44100")]
    return np.concatenate([tracks[0], 0.5 * tracks[1], 2 * tracks[0][5000:], tracks[1][9000:]])


def whole(params, track):
    return SpeechFeatures(MODEL, params, track, WindowSizes(frame_count(len(track)), 0))


def all_frames(features):
    return features.window(0, features.num_frames)


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize(
    "sound, embedding",
    [("inputs.speech", "audio_embedding"), ("outputs.speech_b44100", "audio_embedding_b44100")],
)
def test_a_short_track_follows_the_recording(sound, embedding, params, module_recording):
    recording = module_recording("wav2vec2")
    ours = all_frames(speech_features(MODEL, params, recording[sound]))
    # float32 both. torch also rounds the places between two steps to float32, 1e-5 of a step here, which costs 6e-5
    chex.assert_trees_all_close(ours, recording[f"outputs.{embedding}"], atol=1e-4)


@pytest.mark.parametrize("samples", [1, 1279, 16001])
def test_any_length_gives_its_frames(samples, params):
    track = np.random.default_rng(0).normal(size=samples).astype(np.float32)
    features = speech_features(MODEL, params, track)
    assert features.num_frames == max(1, int(samples / 16000 * 25))
    chex.assert_shape(all_frames(features), (features.num_frames, SIZES.layers, SIZES.width))
    assert np.isfinite(all_frames(features)).all()


def test_digital_silence_is_finite(params):
    assert np.isfinite(all_frames(speech_features(MODEL, params, np.zeros(8000, np.float32)))).all()


def test_windows_are_the_whole_but_for_attention(deaf, speech):
    """Normalisation, first-layer moments, resampling and positions are the whole track's, up to a window's edges."""
    ours = all_frames(SpeechFeatures(MODEL, deaf, speech, SMALL))
    # float32; each window's places among the steps are exact, so only the order of sums differs
    chex.assert_trees_all_close(ours, all_frames(whole(deaf, speech)), atol=2e-5)


def test_windows_with_attention_stay_near_the_whole(params, speech):
    """Random weights attend to all of the track alike, which is the worst case: the windows hear 4 s of 11 here."""
    assert relative(all_frames(SpeechFeatures(MODEL, params, speech, SMALL)), all_frames(whole(params, speech))) < 0.15


def test_a_track_beyond_three_minutes_is_cut_in_windows(deaf, speech):
    track = np.tile(speech, 20)[: 181 * SAMPLE_RATE]
    features = speech_features(MODEL, deaf, track)
    core = LONG_TRACK_WINDOWS.core
    seams = np.concatenate([features.window(0, 5), features.window(core - 5, core + 5), features.window(4520, 4525)])
    expected = all_frames(whole(deaf, track))
    expected = np.concatenate([expected[:5], expected[core - 5 : core + 5], expected[4520:]])
    chex.assert_trees_all_close(seams, expected, atol=2e-5)


def test_frames_do_not_depend_on_the_order_of_asking(params, speech):
    features = SpeechFeatures(MODEL, params, speech, SMALL)
    expected = all_frames(features)
    resumed = SpeechFeatures(MODEL, params, speech, SMALL)
    for start, stop in [(180, 190), (40, 60), (0, 1), (99, 251)]:
        np.testing.assert_array_equal(resumed.window(start, stop), expected[start:stop])


def test_chunks_in_turn_encode_each_window_once_with_one_compilation(params, speech, monkeypatch):
    shapes = shapes_of_calls(monkeypatch)
    features = SpeechFeatures(MODEL, params, speech, SMALL)
    for start in range(0, features.num_frames - 21, 12):
        features.window(start, start + 21)
    assert len(shapes) == -(-features.num_frames // SMALL.core)
    assert len(set(shapes)) == 1


def shapes_of_calls(monkeypatch):
    """A list to which each encoding adds the shapes of its arrays: other ones are compiled anew."""
    shapes, encode = [], module._encode

    def watched(model, *arrays):
        shapes.append(tuple(np.shape(leaf) for leaf in jax.tree.leaves(arrays)))
        return encode(model, *arrays)

    monkeypatch.setattr(module, "_encode", watched)
    return shapes


def test_short_tracks_of_any_length_share_a_program_and_are_as_alone(params, speech, monkeypatch):
    shapes = shapes_of_calls(monkeypatch)
    # one frame; what rounding cuts off; nearly and exactly five seconds
    tracks = [speech[:n] for n in (300, 1279, 16_001, 40_639, 79_999, 80_000)]
    padded = [all_frames(speech_features(MODEL, params, track)) for track in tracks]
    assert len(set(shapes)) == 1
    for track, features in zip(tracks, padded, strict=True):
        # float32; sums of other lengths are in another order
        chex.assert_trees_all_close(features, all_frames(whole(params, track)), atol=1e-4)


@pytest.mark.parametrize("start, stop", [(-1, 5), (5, 5), (0, 10_000)])
def test_frames_that_are_not_there_are_refused(start, stop, params, speech):
    with pytest.raises(ValueError, match=f"{start}..{stop}"):
        speech_features(MODEL, params, speech).window(start, stop)


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (640, 1), (16000, 25), (18560, 28), (20800, 32), (46537, 72)])
def test_frame_count_rounds_as_the_official_code(samples, frames):
    assert frame_count(samples) == frames  # 18560 samples are 1.16 s: 28.999.. frames in floats, so 28
