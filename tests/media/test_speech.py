"""Tracks against the official code's, every kind of file, every refusal, and the streamed sound."""

import struct
import tracemalloc
import warnings
from pathlib import Path

import av
import librosa
import numpy as np
import pyloudnorm
import pytest
import soundfile
from av.stream import Disposition
from safetensors.numpy import load_file

from itjax.errors import UserError
from itjax.media import sound_headers, sound_track, speech
from itjax.media.limits import SERVER, Limits
from itjax.media.sound_track import SoundTrack

RECORDINGS = Path(__file__).parents[1] / "recordings"
MEDIA = RECORDINGS / "media"


def talk(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Something like speech: bursts of harmonics with noise, float32 [n, channels]."""
    n = round(seconds * rate)
    t = np.arange(n) / rate
    voice = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 6)) * (np.sin(2 * np.pi * 1.7 * t) > -0.3)
    voice = 0.1 * voice + 0.01 * np.random.default_rng(seed).standard_normal(n)
    return (voice[:, None] * np.linspace(1, 0.5, channels)).astype(np.float32)


def write_av(path: Path, sound: np.ndarray | None, codec: str, rate: int, pictures: int = 0, late: float = 0) -> Path:
    """A file with a sound stream (float32 [n, channels]) and, where `pictures` > 0, a video stream at 25 fps."""
    options = {"movflags": "faststart"} if path.suffix == ".m4a" else {}  # a cut file keeps its header
    with av.open(str(path), "w", options=options) as container:
        if pictures:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        if sound is not None:
            layout = "mono" if sound.shape[1] == 1 else "stereo"
            stream = container.add_stream(codec, rate=rate, layout=layout)
            for start in range(0, len(sound), 960):
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[start : start + 960].T), "fltp", layout)
                frame.sample_rate, frame.pts = rate, start + round(late * rate)
                for piece in av.AudioResampler(stream.format, layout, rate).resample(frame):
                    container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
        for k in range(pictures):
            grey = np.full((48, 64, 3), 4 * k % 256, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        if pictures:
            container.mux(video.encode(None))
    return path


def cut(path: Path, share: float = 0.5) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


def heard(path: Path | dict, audio_type: str | None = None) -> np.ndarray:
    paths = path if isinstance(path, dict) else {"person1": path}
    return np.concatenate(list(speech.sound_track(paths, audio_type).blocks()))


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    n = min(len(a), len(b))
    return float(np.corrcoef(a[:n], b[:n])[0, 1])


# --- tracks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a16000", "b44100"])
def test_track_is_the_official_one_to_the_bit(name):
    recorded = load_file(RECORDINGS / "modules/wav2vec2.safetensors")[f"outputs.speech_{name}"]
    (track,) = speech.prepare_tracks({"person1": MEDIA / f"{name}.wav"})
    np.testing.assert_array_equal(track, recorded)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "aiff"])
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (8000, 1), (48000, 2)])
def test_what_soundfile_reads_equals_librosa(tmp_path, suffix, rate, channels):
    path = tmp_path / f"talk.{suffix}"
    soundfile.write(path, talk(1.3, rate, channels), rate)
    np.testing.assert_array_equal(speech.load_track(path), librosa.load(path, sr=16000)[0])


def test_more_samples_than_are_read_at_a_time(tmp_path, monkeypatch):
    path = tmp_path / "talk.wav"
    soundfile.write(path, talk(1.0, 44100, 6), 44100)
    monkeypatch.setattr(speech, "READ", 1000)
    np.testing.assert_array_equal(speech.load_track(path), librosa.load(path, sr=16000)[0])


@pytest.mark.parametrize(("rate", "samples"), [(44100, 1), (16000, 1), (8000, 1), (48000, 5)])
def test_a_single_sample_is_a_track(tmp_path, rate, samples):
    soundfile.write(tmp_path / "click.wav", np.full(samples, 0.5), rate)
    (track,) = speech.prepare_tracks({"person1": tmp_path / "click.wav"})
    assert track.dtype == np.float32 and len(track) == -(-samples * 16000 // rate) and np.isfinite(track).all()


@pytest.mark.parametrize(
    ("name", "codec", "rate", "pictures"),
    [
        ("a.m4a", "aac", 44100, 0),
        ("a.mka", "aac", 44100, 0),
        ("a.mp4", "aac", 48000, 40),
        ("a.mkv", "flac", 44100, 40),
        ("a.mov", "pcm_s16le", 16000, 40),
        ("a.webm", "libopus", 48000, 0),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_what_only_av_reads(tmp_path, name, codec, rate, pictures, channels):
    sound = talk(1.6, rate, channels)
    track = speech.load_track(write_av(tmp_path / name, sound, codec, rate, pictures))
    plain = librosa.resample(sound.mean(axis=1), orig_sr=rate, target_sr=16000)
    assert track.dtype == np.float32 and abs(len(track) - len(plain)) < 16000 * 0.06  # a codec's padding
    assert similarity(track[400:-400], plain[400:-400]) > 0.97  # a shift by two samples would give 0.9
    assert abs(np.std(track) / np.std(plain) - 1) < 0.05


def test_sound_that_starts_late_in_a_video_stays_late(tmp_path):
    sound = talk(1.0, 48000)
    path = write_av(tmp_path / "late.mkv", sound, "flac", 48000, pictures=50, late=0.5)
    track = speech.load_track(path)
    assert (
        not track[: 8000 - 200].any()
        and similarity(track[8000:], librosa.resample(sound[:, 0], orig_sr=48000, target_sr=16000)) > 0.99
    )
    assert len(heard(path)) == 72000


def write_with_a_gap(path: Path, sound: np.ndarray, codec: str, start: float, stop: float) -> Path:
    """A file without the packets from `start` to `stop` (seconds), as programs write it that record no silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T), "fltp", "mono")
        frame.sample_rate, frame.pts = 48000, 0
        frames = av.AudioResampler(stream.format, "mono", 48000).resample(frame)
        packets = [packet for frame in [*frames, None] for packet in stream.encode(frame)]
        container.mux([packet for packet in packets if not start <= packet.pts * packet.time_base < stop])
    return path


@pytest.mark.parametrize(("suffix", "codec"), [("webm", "libopus"), ("mkv", "aac"), ("mp4", "aac"), ("ts", "aac")])
@pytest.mark.parametrize("gap", [0.3, 1.2])
def test_what_follows_a_gap_stays_where_it_is(tmp_path, suffix, codec, gap):
    sound = talk(3.0, 48000)
    path = write_with_a_gap(tmp_path / f"call.{suffix}", sound, codec, 1.0, 1.0 + gap)
    track, sound = speech.load_track(path), librosa.resample(sound[:, 0], orig_sr=48000, target_sr=16000)
    late = 16000 * 1024 // 48000 if suffix == "ts" else 0  # the encoder's delay, which this container does not tell of
    assert abs(len(track) - late - len(sound)) < 1600
    for start, stop in ((0.1, 0.9), (1.1 + gap, 2.9)):
        first, count = int(16000 * start), int(16000 * (stop - start))
        shifted = [track[late + first + shift :][:count] for shift in range(-16, 17)]  # times of webm are milliseconds
        assert max(similarity(part, sound[first:]) for part in shifted) > 0.97
    assert not track[late + 16800 : late + int(16000 * (0.95 + gap))].any()
    assert abs(len(heard(path)) / 48000 - len(track) / 16000) < 0.001


def test_a_wav_of_unknown_length_and_one_with_junk_behind_are_whole(tmp_path):
    path = tmp_path / "talk.wav"
    soundfile.write(path, talk(1.0, 16000), 16000)
    whole, expected = path.read_bytes(), speech.load_track(path)
    at = whole.index(b"data") + 4
    for size in (0, 0x7FFFFFFF, 0xFFFFFFFF):  # as programs write that stream
        path.write_bytes(whole[:4] + struct.pack("<I", size) + whole[8:at] + struct.pack("<I", size) + whole[at + 4 :])
        np.testing.assert_array_equal(speech.load_track(path), expected)
    path.write_bytes(whole + b"LIST of nothing" * 9)
    np.testing.assert_array_equal(speech.load_track(path), expected)
    path.write_bytes(whole[:-4])  # two samples lost: nobody hears that
    assert len(speech.load_track(path)) == len(expected) - 2


def write_tracks(path: Path, tracks: list[np.ndarray], default: int | None) -> Path:
    """A file with several audio tracks of 16 kHz, mono; `default`: the number of the one so marked."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("aac", rate=16000, layout="mono") for _ in tracks]
        if default is not None:
            streams[default].disposition = Disposition.default
        for stream, sound in zip(streams, tracks, strict=True):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T), "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize(("default", "used"), [(None, 0), (0, 0), (1, 1)])
def test_of_several_audio_tracks_the_default_one_is_used_for_both(tmp_path, suffix, default, used):
    tracks = [talk(1.0, 16000), np.roll(talk(1.0, 16000, seed=1), 5000, axis=0)]
    path = write_tracks(tmp_path / f"film.{suffix}", tracks, default)
    with pytest.warns(UserWarning, match=rf"film\.{suffix}: of 2 audio tracks, number {used + 1} is used") as told:
        (track,) = speech.prepare_tracks({"person1": path})
        sound = heard(path)[:, 0]
    assert len(told) == 1
    for result in (track, librosa.resample(sound, orig_sr=48000, target_sr=16000)):
        assert similarity(result[400:-400], tracks[used][400:-400, 0]) > 0.97


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("first_frame", ["Xing", "none"])
def test_a_whole_mp3_is_never_taken_for_cut_off(tmp_path, rate, channels, first_frame):
    """Without that frame, libsndfile takes tags for sound: here, for a second of it."""
    path, sound = tmp_path / "talk.mp3", talk(1.3, rate, channels)
    options = {"write_xing": "0"} if first_frame == "none" else {}
    with av.open(str(path), "w", options=options) as container:
        container.metadata["comment"] = "a cover, say " * 1500
        stream = container.add_stream("libmp3lame", rate=rate, layout="mono" if channels == 1 else "stereo")
        stream.bit_rate = 32000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T), "fltp", stream.layout.name)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with soundfile.SoundFile(path) as file:
        declared = sound_headers.declared_seconds(path, file, 0)
        assert (file.frames / rate > 2.3) == (declared is None) == (first_frame == "none")
    assert 1.25 < len(speech.load_track(path)) / 16000 < 1.6


# --- refusals ---------------------------------------------------------------------------------------------------------


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """What each bad file must be told off for."""
    sound = talk(2.0, 44100, 2)
    for suffix in ("wav", "flac", "aiff", "mp3"):
        soundfile.write(folder / f"cut.{suffix}", sound, 44100)
        cut(folder / f"cut.{suffix}", 0.6)
    soundfile.write(folder / "none.wav", sound[:0], 44100)
    for name, bad in (("nan", np.nan), ("inf", np.inf)):
        broken = sound.copy()
        broken[66150, 1] = bad
        soundfile.write(folder / f"{name}.wav", broken, 44100, subtype="FLOAT")
    (folder / "words.wav").write_text("these are words, no sound\n" * 40)
    (folder / "noise.mp3").write_bytes(np.random.default_rng(0).bytes(4000))
    (folder / "empty.wav").write_bytes(b"")
    return {
        "missing": (folder / "missing.wav", "no such file"),
        "folder": (folder, "folder"),
        "empty": (folder / "empty.wav", "empty"),
        "cut wav": (folder / "cut.wav", r"cut off.*declares 2\.00 s.*1\.20 s"),
        "cut aiff": (folder / "cut.aiff", "cut off"),
        "cut flac": (folder / "cut.flac", "cut off"),
        "cut mp3": (folder / "cut.mp3", r"cut off.*declares 2\.00 s.*1\.\d\d s"),
        "cut m4a": (cut(write_av(folder / "cut.m4a", sound, "aac", 44100), 0.6), "cut off.*declares 2"),
        "cut mkv": (cut(write_av(folder / "cut.mka", sound, "aac", 44100), 0.6), "cut off.*declares 2"),
        "cut mp4": (cut(write_av(folder / "cut.mp4", sound, "aac", 44100, pictures=5), 0.9), "damaged, cut off"),
        "no sound": (write_av(folder / "silent.mp4", None, "", 0, pictures=5), "no audio track"),
        "picture": (MEDIA / "face.png", "cannot be read as audio"),
        "no sample": (folder / "none.wav", "no audio samples"),
        "nan": (folder / "nan.wav", r"1\.500 s is not a finite"),
        "inf": (folder / "inf.wav", r"1\.500 s is not a finite"),
        "words": (folder / "words.wav", "cannot be read as audio"),
        "noise": (folder / "noise.mp3", "cannot be read as audio"),
    }


@pytest.mark.filterwarnings("ignore:.*damaged parts")  # the cut m4a ends in half a packet
def test_refusals_name_the_file_and_the_reason(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(audioread|PySoundFile).*")  # librosa's old way round must stay unused
        for path, reason in bad_files(tmp_path).values():
            with pytest.raises(UserError, match=f"(?s)^{path}: .*{reason}"):
                speech.load_track(path)


def test_wrong_persons_and_types():
    a = MEDIA / "a16000.wav"
    for function in (speech.prepare_tracks, speech.sound_track):
        with pytest.raises(UserError, match=r'"both".*"para".*"add"'):
            function({"person1": a, "person2": a}, "both")
        with pytest.raises(UserError, match="names 3 persons"):
            function({"person1": a, "person2": a, "person3": a})
        with pytest.raises(UserError, match="names 0 persons"):
            function({})


def wav(path: Path, rate: int, channels: int = 1, samples: int = 2000) -> Path:
    """A WAV whose header says what it likes."""
    data = np.random.default_rng(0).integers(-999, 999, (samples, channels)).astype("<i2").tobytes()
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2 % 2**32, channels * 2, 16)
    path.write_bytes(
        b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + struct.pack("<I", 16) + fmt
        + b"data" + struct.pack("<I", len(data)) + data
    )  # fmt: skip
    return path


@pytest.mark.parametrize(
    ("rate", "channels", "reason"),
    [
        (1, 1, "declares 1 audio samples per second"),  # 16,000 times the file in memory
        (20, 1, "declares 20 audio samples per second"),
        (2**31 - 1, 1, "declares 2147483647 audio samples per second"),
        (0, 1, "a.wav: "),
        (16000, 64, "64 channels; at most 32"),
        (16000, 255, "255 channels; at most 32"),
    ],
)
def test_what_a_header_claims_is_checked_first(rate, channels, reason, tmp_path):
    path = wav(tmp_path / "a.wav", rate, channels)
    tracemalloc.start()
    with pytest.raises(UserError, match=reason):
        speech.load_track(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


def test_channels_that_ffmpeg_cannot_mix_are_refused_before_the_work(tmp_path):
    path = wav(tmp_path / "a.wav", 16000, 9)
    speech.load_track(path)  # it is their mean
    with pytest.raises(UserError, match=r"a\.wav: 9 channels of 16000 Hz cannot be converted"):
        sound_track.check(speech.sound_track({"person1": path}))


def test_blocks_that_cannot_be_encoded_are_refused_before_the_work():
    with pytest.raises(UserError, match="cannot be encoded"):
        sound_track.check(SoundTrack(48000, 1, lambda: iter([np.zeros((5, 2))])))


@pytest.mark.parametrize("loudness", [1e6, 1e10, 3e38])
def test_samples_far_beyond_full_scale(loudness, tmp_path):
    sound = talk(0.5, 16000)
    sound[4000] = loudness
    soundfile.write(tmp_path / "a.wav", sound, 16000, subtype="FLOAT")
    with pytest.raises(UserError, match=rf"a\.wav: the sample at 0\.250 s is {loudness:g}".replace("+", r"\+")):
        speech.load_track(tmp_path / "a.wav")


def test_integers_as_floats_are_only_loud(tmp_path):
    soundfile.write(tmp_path / "a.wav", talk(0.5, 16000) * 32768 * 3, 16000, subtype="FLOAT")
    assert len(speech.load_track(tmp_path / "a.wav")) == 8000
    sound_track.check(speech.sound_track({"person1": tmp_path / "a.wav"}))


@pytest.mark.parametrize("name", ["a.wav", "a.m4a"])
def test_sound_has_limits(name, tmp_path):
    sound = talk(1.0, 16000, 2)
    if name == "a.wav":
        soundfile.write(tmp_path / name, sound, 16000)
    else:
        write_av(tmp_path / name, sound, "aac", 16000)
    for limits in (Limits(seconds=0.9), Limits(channels=1), Limits(max_sample_rate=8000), Limits(file_bytes=99)):
        with pytest.raises(UserError, match=f"{name}: "):
            speech.prepare_tracks({"person1": tmp_path / name}, limits=limits)
    speech.prepare_tracks({"person1": tmp_path / name}, limits=SERVER)


def test_a_codec_that_ffmpeg_does_not_know(tmp_path):
    path = write_av(tmp_path / "a.mka", talk(0.5, 44100), "flac", 44100)
    path.write_bytes(path.read_bytes().replace(b"A_FLAC", b"A_FLAX"))
    with pytest.raises(UserError, match=r"a\.mka: FFmpeg cannot decode this kind of audio"):  # AttributeError: 'rate'
        speech.load_track(path)


def test_packets_that_cannot_be_read_are_refused_before_the_work(tmp_path):
    soundfile.write(tmp_path / "a.caf", talk(0.5, 16000, 2), 16000)
    data = bytearray((tmp_path / "a.caf").read_bytes())
    data[37] = 128  # of the number of bytes in a packet
    (tmp_path / "a.caf").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.caf: the audio is damaged"):  # av.InvalidDataError
        speech.load_track(tmp_path / "a.caf")
    with pytest.raises(UserError, match=r"a\.caf: the audio is damaged"):
        sound_track.check(speech.sound_track({"person1": tmp_path / "a.caf"}))


# --- loudness, persons, lengths ---------------------------------------------------------------------------------------


def test_loudness_is_pyloudnorms():
    track = talk(1.5, 16000)[:, 0]
    meter = pyloudnorm.Meter(16000)
    expected = pyloudnorm.normalize.loudness(track, meter.integrated_loudness(track), -23.0).astype(np.float32)
    ours = speech.normalise_loudness(track)
    np.testing.assert_array_equal(ours, expected)
    assert ours.dtype == np.float32 and abs(meter.integrated_loudness(ours) + 23) < 0.01


def test_silence_is_left_alone_and_nothing_is_said(recwarn):
    for track in (np.zeros(16000, np.float32), np.zeros(3, np.float32), np.full(32000, 1e-9, np.float32)):
        np.testing.assert_array_equal(speech.normalise_loudness(track), track)
    click = np.zeros(160000, np.float32)
    click[::40000] = 0.9
    assert np.abs(speech.normalise_loudness(click)).max() > 1  # what pyloudnorm would warn of
    assert not recwarn.list


@pytest.mark.parametrize("seconds", [0.399, 0.1])
def test_a_short_track_is_as_loud_as_if_repeated(seconds):
    track = talk(seconds, 16000)[:, 0]
    ours = speech.normalise_loudness(track)
    assert ours.shape == track.shape
    assert abs(pyloudnorm.Meter(16000).integrated_loudness(np.resize(ours, 6400)) + 23) < 0.01


def test_two_persons():
    paths = {"person2": MEDIA / "b44100.wav", "person1": MEDIA / "a16000.wav"}  # by name, not by place
    recorded = load_file(RECORDINGS / "modules/wav2vec2.safetensors")
    a, b = recorded["outputs.speech_a16000"], recorded["outputs.speech_b44100"]
    for audio_type in (None, "para"):
        first, second = speech.prepare_tracks(paths, audio_type)
        np.testing.assert_array_equal(first, a)
        np.testing.assert_array_equal(second, b)
    first, second = speech.prepare_tracks(paths, "add")
    np.testing.assert_array_equal(first, np.concatenate([a, np.zeros_like(b)]))
    np.testing.assert_array_equal(second, np.concatenate([np.zeros_like(a), b]))
    assert first.dtype == second.dtype == np.float32


def test_one_of_two_persons_is_silent():
    """The official JSON writes "None" for one who does not speak."""
    paths = {"person1": None, "person2": MEDIA / "a16000.wav"}
    for audio_type in (None, "para", "add"):
        first, second = speech.prepare_tracks(paths, audio_type)
        assert first.shape == second.shape and not first.any() and second.any()
        alone = np.concatenate(list(speech.sound_track({"person1": paths["person2"]}).blocks()))
        np.testing.assert_array_equal(np.concatenate(list(speech.sound_track(paths, audio_type).blocks())), alone)
    with pytest.raises(UserError, match="nobody"):
        speech.prepare_tracks({"person1": None, "person2": None})


# --- the sound of the video -------------------------------------------------------------------------------------------


def test_sound_keeps_channels_and_level(tmp_path):
    soundfile.write(tmp_path / "mono.wav", talk(1.0, 48000), 48000, subtype="FLOAT")
    soundfile.write(tmp_path / "stereo.wav", talk(1.0, 48000, 2), 48000, subtype="FLOAT")
    mono, stereo = (speech.sound_track({"person1": tmp_path / f"{name}.wav"}) for name in ("mono", "stereo"))
    assert (mono.sample_rate, mono.channels, stereo.channels) == (48000, 1, 2)
    for sound, channels in ((mono, 1), (stereo, 2), (stereo, 2)):  # twice: blocks() starts anew
        blocks = list(sound.blocks())
        assert len(blocks) > 5 and all(b.dtype == np.float32 and b.shape[1] == channels for b in blocks)
        np.testing.assert_allclose(np.concatenate(blocks), talk(1.0, 48000, channels), atol=1e-6)


@pytest.mark.parametrize("name", ["talk.mp3", "talk.flac", "talk.ogg", "talk.m4a", "talk.mp4"])
def test_sound_and_track_start_and_end_together(tmp_path, name):
    path = tmp_path / name
    if path.suffix in (".m4a", ".mp4"):
        write_av(path, talk(1.5, 44100, 2), "aac", 44100, pictures=30 if name == "talk.mp4" else 0)
    else:
        soundfile.write(path, talk(1.5, 44100, 2), 44100)
    sound, track = heard(path), speech.load_track(path)
    assert abs(len(sound) / 48000 - len(track) / 16000) < 0.001
    assert similarity(librosa.resample(sound.mean(axis=1), orig_sr=48000, target_sr=16000), track) > 0.995


def test_sound_of_two_persons(tmp_path):
    one, two = talk(1.0, 48000), 8 * talk(0.7, 48000, 2, seed=1)
    for name, sound in (("one", one), ("two", two)):
        soundfile.write(tmp_path / f"{name}.wav", sound, 48000, subtype="FLOAT")
    paths = {"person1": tmp_path / "one.wav", "person2": tmp_path / "two.wav"}
    both = np.repeat(one, 2, axis=1)  # at full level on both sides
    np.testing.assert_allclose(heard(paths, "add"), np.concatenate([both, two]), atol=1e-6)
    mixed = both.copy()
    mixed[: len(two)] += two
    assert np.abs(mixed).max() > 1
    for audio_type in (None, "para"):
        np.testing.assert_allclose(heard(paths, audio_type), np.clip(mixed, -1, 1), atol=1e-6)
    swapped = {"person1": paths["person2"], "person2": paths["person1"]}
    np.testing.assert_allclose(heard(swapped), np.clip(mixed, -1, 1), atol=1e-6)


def test_five_minutes_of_sound_are_never_held(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(16000 * 300, np.int16), 16000)
    tracemalloc.start()
    samples = sum(len(block) for block in speech.sound_track({"person1": path, "person2": path}).blocks())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert samples == 48000 * 300 and peak < 2e6  # the whole would be 58 MB


def test_a_damaged_packet_costs_a_warning_not_the_run(tmp_path):
    path = write_av(tmp_path / "talk.m4a", talk(4.0, 44100), "aac", 44100)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2
    data[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match=r"talk\.m4a: damaged"):
        sound = heard(path)
    assert 3.5 * 48000 < len(sound) <= 4.1 * 48000
