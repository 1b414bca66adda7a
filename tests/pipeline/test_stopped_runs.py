"""Runs that cannot go on: frames that are not numbers, full devices, SIGTERM. What was made is kept, and is continued."""

import os
import signal

import jax
import numpy as np
import pytest

from itjax.errors import ComputationError, OutputError
from itjax.media.writer import VideoWriter
from itjax.pipeline import encoders
from itjax.pipeline.process import memory_errors
from itjax.sampling.noise import SeededNoise


def test_frames_that_are_not_numbers_end_the_run_and_sigterm_too(run, talk, decode, face, monkeypatch):
    """Three chunks: the second is NaN at first; when the run goes on, SIGTERM comes as soon as that chunk is kept."""
    voice = "--image", face, "--audio", talk(13)
    read, append = SeededNoise.read, VideoWriter.append

    with monkeypatch.context() as patch:
        patch.setattr(SeededNoise, "read", lambda noise, number: read(noise, number) * (np.nan if number == 1 else 1))
        result = run(*voice)
    assert result.status == 3
    assert "chunk 2 of 3: step 1 of 1 made latents that are not finite numbers; 5 frames are saved in" in result.said
    assert len(decode(result.path).frames) == 5

    def terminated(writer, *chunk):
        append(writer, *chunk)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "append", terminated)
        result = run(*voice, "--resume")
    assert result.status == 143
    assert "finished chunks are saved, continue with --resume" in result.said
    assert len(decode(result.path).frames) == 9
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_run_that_lacks_only_its_finished_file_reads_no_weights(run, talk, decode, face, monkeypatch, request):
    voice = "--image", face, "--audio", talk(7)
    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "finish", lambda writer: raise_no_space())
        assert run(*voice).status == 3
    request.getfixturevalue("no_weights_read")
    result = run(*voice, "--resume")
    assert len(result.video.frames) == 7 and "of 2 total" not in result.said


def raise_no_space():
    raise OutputError("the disk is full")


FULL = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1099511627776 bytes.")


def raise_full(*_):
    raise FULL


def test_full_devices_are_told_with_what_would_help(run, talk, face, monkeypatch, no_weights_read):
    monkeypatch.setattr(encoders, "encode_prompts", raise_full)
    result = run("--image", face, "--audio", talk(3))
    assert result.status == 3
    assert "infer.py: text encoder: the memory of the" in result.said
    assert "a smaller --size, fewer frames per chunk (--frame_num)" in result.said and "Traceback" not in result.said


def test_other_errors_of_jax_are_left_alone():
    with pytest.raises(ComputationError, match=r"baking: the memory of the .* is full\. Less is needed with a smaller cake"):  # noqa: SIM117
        with memory_errors("baking", "a smaller cake"):
            raise FULL
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory_errors("baking", "a smaller cake"):
        raise jax.errors.JaxRuntimeError("INTERNAL: the oven")
