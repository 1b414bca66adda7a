"""A training of the speech encoder: the steps, their validation, and the result at the end."""

from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from itjax.pipeline.process import exact_float32
from itjax.progress import SILENT, Progress
from itjax.synthetic.mouth import Mouth
from itjax.training import curve, small_loop
from itjax.training.curve import Panel
from itjax.training.run import End
from itjax.training.small_loop import Metrics, Plan
from itjax.training.speech_encoder import export, readout, speech, step
from itjax.training.speech_encoder.settings import SpeechTraining
from itjax.training.speech_encoder.speech import Batches, Spoken
from itjax.training.state import TrainState

READ = tuple(f"features/{name}" for name in (*Mouth._fields, "phonemes"))
CURVES = (
    Panel("loss of training examples", ("loss", "mouth", "phonemes"), log=True),
    Panel("held-out voices: r, share of phonemes", READ, level=readout.GATE),
)


def train(
    settings: SpeechTraining, folder: Path, minutes: float | None = None, progress: Progress = SILENT
) -> End:  # fmt: skip
    """Starts or continues the run in `folder`; writes curve.png, and after the last step the folder "export" there.

    This call ends after `minutes`; the next one continues.

    Raises:
        UserError: If the folder holds another run, espeak-ng or matplotlib is not installed, or the loss is not finite.
        OutputError: If a file cannot be written.
    """
    curve.check_matplotlib()
    plan = Plan(folder, settings.steps, minutes, settings.log_every, settings.validate_every, settings.save_every)
    content = {"trainer": "speech_encoder", **asdict(settings)}
    with exact_float32():
        with Batches(settings, speech.workers_here()) as batches:
            work = _Work(settings, batches)
            spent = lambda: batches.core_seconds
            ended = small_loop.run(plan, content, work.initial, work.step, work.measure, progress, spent)
        if ended.end is not End.INTERRUPTED:
            curve.write(folder, CURVES)
        if ended.end is End.DONE:
            export.write(folder, settings, ended, work.fit, progress)
    return ended.end


class _Work:
    """The steps and validations of a training."""

    def __init__(self, settings: SpeechTraining, batches: Batches):
        self._settings, self._batches, self._step = settings, batches, step.compile_step(settings)

    def initial(self) -> TrainState:
        return step.initial_state(self._settings)

    def step(self, state: TrainState, done: int) -> tuple[TrainState, dict]:
        waited = self._batches.waited
        batch = self._batches.batch(done)
        state, metrics = self._step(state, batch)
        return state, metrics | {"step/waiting_for_data": self._batches.waited - waited}

    def measure(self, state: TrainState) -> Metrics:
        found = readout.evaluate(self._settings.sizes, state.trainable, self.fit, self._validation)
        return {f"{kind}/{name}": value for kind, read in found.items() for name, value in read.items()}

    @cached_property
    def fit(self) -> Spoken:
        """Speech on which read-outs are fitted."""
        return speech.make_many(speech.FIT_SEED, self._settings.fit_clips, self._settings.held_out_seconds, "train")

    @cached_property
    def _validation(self) -> Spoken:
        settings = self._settings
        return speech.make_many(speech.HELD_OUT_SEED, settings.held_out_clips, settings.held_out_seconds, "validation")
