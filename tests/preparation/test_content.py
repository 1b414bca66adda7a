"""What the records hold, against the networks called directly on frames that PyAV decodes: content, not form."""

from functools import partial

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_videos import UNUSABLE

from itjax import records
from itjax.conditioning.prompt import NEGATIVE_PROMPT, load_tokenizer, tokenize
from itjax.conditioning.speech_features import speech_features
from itjax.configs.tiny import PRESET
from itjax.media.resize import resize_and_crop, to_unit
from itjax.media.speech import prepare_tracks
from itjax.models import vae
from itjax.models.apply import apply
from itjax.models.clip import Clip
from itjax.models.clip_pixels import clip_pixels
from itjax.models.umt5 import Umt5
from itjax.models.wav2vec2 import Wav2Vec2
from itjax.parallel.sharding import make_mesh
from itjax.preparation.shards import chunk_regions
from itjax.records import SPEECH_MARGIN

NETS = PRESET.networks
SIZE = (48, 48)
CUT, SECOND, THIRTY, TWO = "cut.mp4[0:25]", "cut.mp4[25:50]", "thirty.mp4[0:36]", "pair/two.mp4[0:50]"
NAMES = [CUT, SECOND, THIRTY, TWO]
# float16 keeps 11 bits; and two programs for the same float32 sums round differently
HALF = {"rtol": 2**-10, "atol": 1e-3}


@pytest.fixture(scope="module")
def parameters(weights):
    """parameters("vae"): a network in float32, read once."""
    mesh, read = make_mesh(1, 1, heads=1, devices=jax.devices()[:1]), {}
    return lambda name: read[name] if name in read else read.setdefault(name, weights.read(name, mesh, jnp.float32))


@pytest.fixture(scope="module")
def encode(parameters):
    """encode([F, 48, 48, 3] in -1..1) -> latents."""
    program = jax.jit(lambda params, frames: vae.encode(params, frames[None], NETS.vae, jnp.float32)[0])
    return lambda frames: np.asarray(program({k: v for k, v in parameters("vae").items() if k != "decoder"}, frames))


@pytest.fixture(scope="module")
def pictures(videos):
    """pictures("cut.mp4[25:50]"): that clip's frames in -1..1 at the dataset's size, all decoded in order."""

    def of(name):
        file, _, span = name.partition("[")
        start, stop = map(int, span[:-1].split(":"))
        with av.open(str(videos / file)) as container:
            decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        # whole numbers: the last source frame that begins at or before i/25 s
        shown = [min(i * (30 if file == "thirty.mp4" else 25) // 25, len(decoded) - 1) for i in range(start, stop)]
        return np.stack([to_unit(resize_and_crop(decoded[i], SIZE)) for i in shown])

    return of


def test_the_dataset_lists_every_clip_and_every_file_that_gave_none(dataset, clips):
    assert sorted(clips) == sorted(NAMES)
    assert [bucket.name for bucket in dataset.buckets] == ["48x48-p1", "48x48-p2"]
    assert [bucket.num_frames for bucket in dataset.buckets] == [(25, 25, 36), (50,)]
    assert dataset.layout.ends and dataset.preset == PRESET
    skipped = (dataset.folder / "skipped.jsonl").read_text()
    assert skipped.count("\n") == len(UNUSABLE) and all(f'"file": "{name}"' in skipped for name in UNUSABLE)


@pytest.mark.parametrize("name", NAMES)
def test_places_follow_from_the_length(dataset, clips, name):
    clip = clips[name]
    np.testing.assert_array_equal(clip.chunk_starts, records.chunk_starts(clip.num_frames, dataset.layout))
    np.testing.assert_array_equal(clip.reference_frames, records.reference_frames(clip.num_frames, dataset.layout))
    assert len(clip.chunks) == len(clip.ends) == len(clip.chunk_starts) >= 2
    assert len(clip.references) == len(clip.clip_tokens) == len(clip.reference_frames) >= 7


@pytest.mark.parametrize("name", NAMES)
def test_chunks_are_latents_of_their_own_frames(clips, pictures, encode, name):
    frames = pictures(name)
    for latents, start in zip(clips[name].chunks, clips[name].chunk_starts, strict=True):
        np.testing.assert_allclose(latents, encode(frames[start : start + 17]), **HALF)


def test_ends_are_latents_of_the_first_and_last_frame_with_zeros_between(clips, pictures, encode):
    frames = pictures(SECOND)
    for latents, start in zip(clips[SECOND].ends, clips[SECOND].chunk_starts, strict=True):
        shown = np.zeros((17, *SIZE, 3), np.float32)
        shown[0], shown[-1] = frames[start], frames[start + 16]
        np.testing.assert_allclose(latents, encode(shown), **HALF)


@pytest.mark.parametrize("name", [SECOND, THIRTY])
def test_references_are_latents_of_one_frame_and_zeros(clips, pictures, encode, name):
    frames = pictures(name)
    for latents, number in zip(clips[name].references, clips[name].reference_frames, strict=True):
        shown = np.zeros((17, *SIZE, 3), np.float32)
        shown[0] = frames[number]
        np.testing.assert_allclose(latents, encode(shown), **HALF)


def test_clip_tokens_are_those_of_the_reference_frames(clips, pictures, parameters):
    shown = pictures(SECOND)[clips[SECOND].reference_frames]
    expected = jax.jit(partial(apply, Clip(NETS.clip)))(
        parameters("clip"), np.stack([clip_pixels(frame, NETS.clip.image) for frame in shown])
    )
    np.testing.assert_allclose(clips[SECOND].clip_tokens, expected, **HALF)


@pytest.fixture(scope="module")
def whole(parameters, videos):
    """whole("cut.mp4", ...): features of whole tracks, padded with silence to `frames`, at the video's rate [P, F, N, C]."""

    def of(*files, frames=0):
        features = []
        for track in prepare_tracks({f"person{i}": videos / file for i, file in enumerate(files)}):
            track = np.pad(track, (0, max(0, frames * 640 - len(track))))
            all_of_it = speech_features(Wav2Vec2(NETS.wav2vec2), parameters("wav2vec2"), track)
            features.append(all_of_it.window(0, all_of_it.num_frames))
        return features

    return of


@pytest.mark.parametrize(("name", "start", "stop"), [(CUT, 0, 25), (SECOND, 25, 50)])
def test_speech_of_frame_i_is_that_of_the_whole_track_there(clips, whole, name, start, stop):
    (track,) = whole("cut.mp4", frames=50)
    wanted = np.arange(start - SPEECH_MARGIN, stop + SPEECH_MARGIN)
    assert wanted[0] < 0 or wanted[-1] >= len(track)  # each of the two clips has a margin beyond the track
    edges_repeat = wanted.clip(0, len(track) - 1)
    assert clips[name].speech.shape == (1, len(wanted), *track.shape[1:])
    np.testing.assert_allclose(clips[name].speech[0], track[edges_repeat], **HALF)
    shifted = track[(edges_repeat + 1).clip(0, len(track) - 1)]  # one frame late is another thing: the test can tell
    assert np.abs(clips[name].speech[0] - shifted).max() > 0.1


def test_two_persons_have_a_voice_each_the_shorter_one_silent_after_its_end(clips, whole):
    tracks = whole("pair/two.1.wav", "pair/two.2.wav", frames=50)
    assert clips[TWO].speech.shape[0] == 2 and np.abs(tracks[0] - tracks[1]).max() > 0.1
    edges_repeat = np.arange(-SPEECH_MARGIN, 50 + SPEECH_MARGIN).clip(0, 49)
    for features, track in zip(clips[TWO].speech, tracks, strict=True):
        np.testing.assert_allclose(features, track[edges_repeat], **HALF)


def test_masks_are_the_boxes_on_the_grid_of_tokens(clips):
    # 64 pixels become 3 tokens; each is what its left upper corner is (0, 21, 43): person 1 ends at 20, person 2
    # begins at 40
    first, second, background = clips[TWO].masks.reshape(3, 3, 3)
    columns = lambda mask: mask.all(axis=0).tolist()
    assert columns(first) == [True, False, False] and columns(second) == [False, False, True]
    assert columns(background) == [False, True, False] and clips[TWO].masks.sum() == 9
    assert clips[CUT].masks is None


def test_text_is_the_captions_states_up_to_its_end(dataset, weights, parameters, clips):
    texts = ["A man speaks.", "", NEGATIVE_PROMPT]
    ids, mask = tokenize(load_tokenizer(weights.tokenizer, NETS.umt5.vocabulary), texts, NETS.dit.text_len)
    states = np.asarray(jax.jit(partial(apply, Umt5(NETS.umt5)))(parameters("umt5"), ids, mask)) * mask[..., None]
    counts = mask.sum(axis=1)
    for name, number in [(CUT, 0), (SECOND, 0), (THIRTY, 1), (TWO, 1)]:
        assert clips[name].text.shape == (counts[number], NETS.dit.text_dim)
        np.testing.assert_allclose(clips[name].text, states[number, : counts[number]], **HALF)
    # float32 both, another batch
    np.testing.assert_allclose(records.null_prompts(dataset), states[1:], atol=1e-5)


def test_regions_are_how_bright_each_latent_cell_is_in_its_frames(dataset, clips):
    assert dataset.layout.regions
    regions = {name: np.asarray(clip.regions, np.float32) for name, clip in clips.items()}
    assert all(regions[name].shape == clips[name].chunks.shape[:-1] for name in NAMES)
    corner, below = np.zeros((6, 6)), np.zeros((6, 6))
    corner[:3, :3] = below[3:] = 1
    # a video is never quite black or white, and a border is made smaller with what lies beside it
    for name, expected, atol in (
        (CUT, 0 * corner, 0.05),
        (SECOND, corner, 0.05),
        (THIRTY, 0 * corner, 0),
        (TWO, below, 0.05),
    ):
        np.testing.assert_allclose(regions[name], np.broadcast_to(expected, regions[name].shape), atol=atol, err_msg=name)


def test_a_latent_stands_for_the_brightest_of_its_frames():
    region = np.zeros((25, 1, 1), np.float32)
    region[[0, 3, 16]] = np.asarray([0.2, 0.5, 0.9])[:, None, None]
    found = chunk_regions(region, (2, 5, 1, 1, 16), records.Layout(17, 4, 8), 25)
    np.testing.assert_allclose(found[..., 0, 0], [[0.2, 0.5, 0, 0, 0.9], [0, 0, 0.9, 0, 0]], atol=1e-3)
