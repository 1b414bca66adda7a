"""A contrastive training: the steps, their measurements, and the result."""

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from itjax.conditioning.prompt import load_tokenizer, tokenize
from itjax.disk import atomic_path, output_errors
from itjax.progress import Progress
from itjax.synthetic.workers import processes
from itjax.training import curve, small_loop
from itjax.training.assembly import TOKENIZER_FILE, lazy
from itjax.training.card import provenance
from itjax.training.contrastive import measure as measures
from itjax.training.contrastive.measure import Figures
from itjax.training.contrastive.scenes import Drawing, Pool
from itjax.training.contrastive.settings import ContrastiveTraining
from itjax.training.contrastive.step import compile_step, initial_state
from itjax.training.contrastive.tokenizer import drawn_tokenizer
from itjax.training.curve import Panel
from itjax.training.run import End
from itjax.training.small_loop import Ended, Metrics, Plan
from itjax.training.state import TrainState
from itjax.weights import store

RESULT, WEIGHTS, CARD = "result", "weights", "card.json"
GATE = {"retrieval": 0.9, "hair": 0.8, "wall": 0.9}
PACKAGES = ("opencv-python", "tokenizers")  # that made the data
CURVES = (
    Panel("loss", ("loss",), log=True),
    Panel("people kept out: share of right answers", tuple(f"validation/{name}" for name in GATE)),
)


def train(settings: ContrastiveTraining, plan: Plan, progress: Progress) -> End:
    """Starts or continues a training in `plan.out`. After its last step, writes `plan.out`/result.

    Raises:
        UserError: If the folder holds something else, or the loss is not finite.
        OutputError: If a file cannot be written.
    """
    curve.check_matplotlib()
    with ExitStack() as stack:
        work = _Work(settings, Drawing(stack.enter_context(processes())))
        stated = {"trainer": "contrastive", **asdict(settings)}
        ended = small_loop.run(plan, stated, work.initial, work.step, work.measure, progress)
        if ended.end is not End.INTERRUPTED:
            curve.write(plan.out, CURVES)
        if ended.end is not End.DONE or (plan.out / RESULT).exists():
            return ended.end
        # the figures are those of the weights as they are stored
        stored = jax.tree.map(lambda leaf: np.asarray(leaf).astype(ml_dtypes.bfloat16), ended.state.trainable)
        figures = work.figures(jax.tree.map(lambda leaf: leaf.astype(np.float32), stored), "test")
        write_result(plan.out / RESULT, stored, settings, work.tokenizer, card(settings, figures, ended))
        said = ", ".join(f"{name} {value:.3f} (gate {GATE[name]})" for name, value in figures._asdict().items())
        progress.notice(f"{plan.out / RESULT}: {said}")
    return ended.end


class _Work:
    """The steps and measurements of a training."""

    def __init__(self, settings: ContrastiveTraining, drawing: Drawing):
        self.tokenizer = drawn_tokenizer()
        self._settings, self._drawing = settings, drawing
        self._step = compile_step(settings)
        self._scenes: dict[str, measures.Scenes] = {}
        growth = (settings.first_scenes, settings.scenes_per_step, settings.most_scenes)
        part = settings.pairs_of_people / settings.batch
        fewer = tuple(int(number * part) for number in growth)
        self._pools = (
            (Pool(drawing, self.tokens, settings.seed, 1, growth), settings.batch - settings.pairs_of_people),
            (Pool(drawing, self.tokens, settings.seed, 2, (fewer[0], fewer[1], fewer[2])), settings.pairs_of_people),
        )

    def tokens(self, prompts: Sequence[str]) -> Int[np.ndarray, "n X"]:
        return tokenize(self.tokenizer, prompts, self._settings.text_len)[0]

    def initial(self) -> TrainState:
        return initial_state(self._settings)

    def step(self, state: TrainState, done: int) -> tuple[TrainState, dict[str, Any]]:
        began = time.perf_counter()
        batches = tuple(pool.batch(done, count) for pool, count in self._pools)
        waited = time.perf_counter() - began
        state, values = self._step(state, batches)
        return state, values | {"step/waiting_for_data": waited}

    def measure(self, state: TrainState) -> Metrics:
        figures = self.figures(state.trainable, "validation")
        return {f"validation/{name}": value for name, value in figures._asdict().items()}

    def figures(self, parameters: dict, split: str) -> Figures:
        if split not in self._scenes:
            self._scenes[split] = measures.scenes(self._drawing, split)
        return measures.evaluate(self._settings, parameters, self._scenes[split], self.tokens)


def card(settings: ContrastiveTraining, figures: Figures, ended: Ended) -> dict[str, Any]:
    """What the encoders are, how they were trained, and their figures."""
    return {
        "networks": ["clip", "umt5"],
        "trained_on": "stills of the drawn world (itjax.synthetic) and their prompts, split train",
        "cannot": "know photographs, or words that drawn prompts do not have",
        "figures": {name: round(value, 4) for name, value in figures._asdict().items()},
        "measured_on": f"{measures.HELD_OUT_SCENES} stills of test people; retrieval among {measures.OTHERS} other prompts",
        "gate": GATE,
        "passed": all(getattr(figures, name) >= least for name, least in GATE.items()),
    } | provenance(asdict(settings), ended, PACKAGES)


def write_result(
    folder: Path, parameters: dict, settings: ContrastiveTraining, tokenizer: Tokenizer, card: dict[str, Any]
) -> None:  # fmt: skip
    """Writes `folder`: weights/ (a checkpoint with the branches "clip" and "umt5", and the tokenizer) and card.json.

    Raises:
        OutputError: If a file cannot be written; no partial output remains.
    """
    with atomic_path(folder) as temporary, output_errors(folder):
        temporary.mkdir()
        file = temporary / "tokenizer.json"
        tokenizer.save(str(file))
        load_tokenizer(temporary, settings.umt5.vocabulary)
        tree = {name: jax.tree.map(lazy, parameters[name]) for name in ("clip", "umt5")}
        metadata = {"clip": asdict(settings.clip), "umt5": asdict(settings.umt5)}
        store.save(temporary / WEIGHTS, tree, metadata, {TOKENIZER_FILE: file})
        file.unlink()
        (temporary / CARD).write_text(json.dumps(card, indent=1) + "\n")
