"""The result of a run: the encoder's weights in the package's own format, and a card that says what they are."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from itjax.config import Networks, Preset, to_json
from itjax.disk import output_errors, write_text
from itjax.progress import Progress
from itjax.training.card import provenance
from itjax.training.small_loop import Ended
from itjax.training.speech_encoder import readout, speech
from itjax.training.speech_encoder.settings import SpeechTraining
from itjax.training.speech_encoder.speech import Spoken
from itjax.weights import store
from itjax.weights.lazy import LazyTensor

FOLDER, CHECKPOINT, CARD = "export", "checkpoint", "card.json"


def write(
    folder: Path, settings: SpeechTraining, ended: Ended, fit: Spoken, progress: Progress
) -> None:  # fmt: skip
    """Writes export/checkpoint (weights in bfloat16) and export/card.json into the run's folder.

    What exists is kept: a finished run does not change. The card's figures are those of the rounded weights.

    Args:
        folder: The run's folder.
        settings: Those of the run.
        ended: The finished run of `step.Listener`.
        fit: Speech on which read-outs are fitted.
        progress: Is told the figures.

    Raises:
        OutputError: If a file cannot be written.
    """
    target = folder / FOLDER
    if (target / CARD).exists():
        return
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf).astype(ml_dtypes.bfloat16), ended.state.trainable)
    with output_errors(target):
        target.mkdir(exist_ok=True)
    if not (target / CHECKPOINT).exists():
        lazy = lambda leaf: LazyTensor(leaf.shape, leaf.dtype, partial(_part, leaf))
        preset = Preset("speech-encoder", Networks(wav2vec2=settings.sizes), {})
        store.save(target / CHECKPOINT, {"wav2vec2": jax.tree.map(lazy, rounded["encoder"])}, to_json(preset))
    as_read = jax.tree.map(lambda leaf: leaf.astype(np.float32), rounded)
    card = _card(settings, as_read, fit, ended)
    write_text(target / CARD, json.dumps(card, indent=1) + "\n")
    for split, found in card["figures"].items():
        read = ", ".join(f"{name} {value:.3f}" for name, value in found["features"].items())
        progress.notice(f"{split}: {read}")
    progress.notice(f"{target}: {card['parameters']} parameters; gate {'passed' if card['gate']['passed'] else 'missed'}")


def _part(leaf: np.ndarray, index: tuple[slice, ...]) -> np.ndarray:
    return leaf[index]


def _card(settings: SpeechTraining, parameters: dict, fit: Spoken, ended: Ended) -> dict[str, Any]:
    make = partial(speech.make_many, speech.HELD_OUT_SEED, settings.held_out_clips, settings.held_out_seconds)
    figures = {split: readout.evaluate(settings.sizes, parameters, fit, make(split)) for split in ("validation", "test")}
    jaw = figures["test"]["features"]["jaw"]
    return {
        "network": "wav2vec2",
        "trained_on": "speech of the drawn world (itjax.synthetic, espeak-ng), split train; mouth and phonemes are known",
        "cannot": "hear real recordings or other languages than English reliably: it has heard synthetic voices only",
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(parameters["encoder"])),
        "figures": figures,
        "gate": {"figure": "test, features, jaw", "least": readout.GATE, "passed": jaw >= readout.GATE},
    } | provenance(asdict(settings), ended, ("librosa", "espeakng-loader"))
