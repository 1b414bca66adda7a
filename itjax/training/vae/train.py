"""A training of the small VAE: the steps, its measurements, and the result."""

from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from itjax.config import VaeSizes
from itjax.errors import UserError
from itjax.media.containers import FRAME_RATE
from itjax.pipeline.process import exact_float32
from itjax.progress import Progress
from itjax.synthetic.workers import processes
from itjax.training import curve, small_loop
from itjax.training.card import provenance
from itjax.training.curve import Panel
from itjax.training.run import End
from itjax.training.small_loop import Ended, Metrics, Plan
from itjax.training.state import TrainState
from itjax.training.vae import fold, measure, objective, refine, result
from itjax.training.vae.frames import SECONDS, DrawnFrames
from itjax.training.vae.recipe import Recipe
from itjax.training.vae.start import CHAIN, initial_parameters

STATISTICS_CLIPS = 32  # of training people, over which the latents are made standard
VALIDATION_CLIPS, TEST_CLIPS = 6, 12
GATE = {"psnr": 27.0, "mouth_r": 0.9}
AIM = {"psnr": 30.0, "mouth_r": 0.95}
CURVES = (
    Panel("loss", ("loss",), log=True),
    Panel("people kept out: PSNR, dB", ("validation/psnr", "validation/mouth_psnr"), level=GATE["psnr"]),
    Panel("people kept out: r of the mouth's opening", ("validation/mouth_r",), level=GATE["mouth_r"]),
    Panel("refinement: what encoding decoded pictures again loses", ("again",)),
)


@dataclass(frozen=True)
class Training:
    """What determines a trained VAE, besides versions and machine.

    Attributes:
        recipe: How it is trained.
        sizes: Of the network.
        size: Height and width of the drawn pictures, pixels.
        seed: Random seed of weights, noise and data.
        start: What identifies the weights of the VAE that is refined; None: training from nothing.
    """

    recipe: Recipe
    sizes: VaeSizes
    size: int = 64
    seed: int = 0
    start: str | None = None

    def __post_init__(self):
        stride = self.sizes.spatial_stride
        if self.start is None and self.sizes.dim < CHAIN:
            raise UserError(f"--dim {self.sizes.dim}: must be at least {CHAIN}")
        frames = self.recipe.clip_frames
        if frames % self.sizes.time_stride != 1 or not 1 < frames <= SECONDS * FRAME_RATE:
            raise UserError(
                f"--clip_frames {frames}: must be 4n+1, from 5 to {int(SECONDS * FRAME_RATE)}, as {SECONDS:g} s are drawn"
            )
        if self.start is not None and (self.recipe.image_steps or frames <= refine.CONTEXT):
            raise UserError(
                f"--start: a VAE is refined on clips of more than {refine.CONTEXT} frames; give --clip_frames "
                f"{refine.CONTEXT + self.sizes.time_stride} or more, and no --image_steps"
            )
        if self.recipe.image_steps < 0 or not 0 < self.recipe.learning_rate < 1:
            raise UserError("--image_steps must be at least 0, and --learning_rate between 0 and 1")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: must be at least 0")
        if self.size < 2 * stride or self.size % stride:
            raise UserError(f"--size {self.size}: must be a multiple of {stride}, and at least {2 * stride}")

    @property
    def settings(self) -> dict[str, Any]:
        """As JSON."""
        settings = asdict(self)
        if self.start is None:
            del settings["start"]  # as before there was refinement: runs from then go on
        return settings


def train(training: Training, plan: Plan, progress: Progress, start: dict | None = None) -> End:
    """Starts or continues a training in `plan.out`. After its last step, writes `plan.out`/result and curve.png.

    If the minutes are over before, only the curve is written. `start`: the parameters that `training.start` identifies.

    Raises:
        UserError: If the settings, the folder or the installation do not permit it, or the loss is not finite.
        OutputError: If a file cannot be written.
    """
    curve.check_matplotlib()
    with ExitStack() as stack:
        workers = stack.enter_context(processes())
        work = _Work(training, workers, start)
        settings = {"trainer": "vae", **training.settings}
        ended = small_loop.run(
            plan, settings, work.initial, work.step, work.measure, progress, elsewhere=lambda: work.drawing_core_seconds
        )
        if ended.end is not End.INTERRUPTED:
            curve.write(plan.out, CURVES)
        if ended.end is not End.DONE or (plan.out / "result").exists():
            return ended.end
        clips = measure.held_out(TEST_CLIPS, training.size, "test", measure.FRAMES, workers)
        with exact_float32():
            parameters = work.folded(ended.state)
            figures, made = measure.evaluate(parameters, training.sizes, clips)
        card = _card(training, figures, ended)
        result.write_result(plan.out / "result", parameters, training.sizes, card, clips.video, made)
        progress.notice(f"{plan.out / 'result'}: {_verdict(figures)}")
    return ended.end


class _Work:
    """The steps and measurements of a training."""

    def __init__(self, training: Training, workers: Executor, start: dict | None):
        self._training, self._workers, self._start = training, workers, start
        self._frames = DrawnFrames(training.seed, training.size, workers)
        self._known = () if start is None else (start,)
        loss = refine.loss if self._known else objective.loss
        self._step = objective.compile_step(training.sizes, training.recipe, training.seed, loss)
        self._held_out: measure.HeldOut | None = None

    @property
    def drawing_core_seconds(self) -> float:
        return self._frames.drawing

    def initial(self) -> TrainState:
        if self._start is None:
            parameters = initial_parameters(self._training.sizes, self._training.seed)
        else:
            parameters = jax.tree.map(jnp.copy, self._start)  # the buffers of a state are reused
        return objective.initial_state(parameters, self._training.recipe)

    def step(self, state: TrainState, done: int) -> tuple[TrainState, dict[str, Any]]:
        recipe, frames = self._training.recipe, self._frames
        waited = frames.waited
        pictures = done < recipe.image_steps
        batch = frames.batch(done, *((recipe.images, 1) if pictures else (recipe.clips, recipe.clip_frames)))
        weight = jnp.float32(1.0 if pictures else recipe.mouth_weight)
        state, metrics = self._step(state, batch.video, batch.mouths, weight, *self._known)
        return state, metrics | {"step/waiting_for_data": frames.waited - waited}

    def measure(self, state: TrainState) -> Metrics:
        if self._held_out is None:
            self._held_out = measure.held_out(
                VALIDATION_CLIPS, self._training.size, "validation", measure.FRAMES, self._workers
            )
        with exact_float32():
            figures, _ = measure.evaluate(self.folded(state), self._training.sizes, self._held_out)
        return {f"validation/{name}": value for name, value in figures._asdict().items()}

    def folded(self, state: TrainState) -> dict[str, Any]:
        """The averaged parameters, with latents that are standard over training clips; in a refinement, as they are."""
        if state.ema is None:
            raise ValueError("the state has no average")
        if self._start is not None:
            return state.ema
        clips = self._frames.newest(int(state.step), STATISTICS_CLIPS, measure.FRAMES)
        return fold.folded(state.ema, *fold.latent_statistics(state.ema, clips, self._training.sizes))


def _card(training: Training, figures: measure.Figures, ended: Ended) -> dict[str, Any]:
    settings = {name: value for name, value in training.settings.items() if name != "sizes"}
    passed = all(getattr(figures, name) >= value for name, value in GATE.items())
    return {
        "what": "causal video VAE, trained on drawn talking faces by python -m itjax.training.vae",
        "figures": {name: round(value, 4) for name, value in figures._asdict().items()},
        "measured_on": f"{TEST_CLIPS} clips of {measure.FRAMES} frames of the test split",
        "gate": GATE,
        "aim": AIM,
        "passed": passed,
    } | provenance(settings, ended, ("opencv-python", "espeakng-loader"))


def _verdict(figures: measure.Figures) -> str:
    rated = lambda name: (
        "aim" if getattr(figures, name) >= AIM[name] else "gate" if getattr(figures, name) >= GATE[name] else "gate missed"
    )
    return (
        f"{figures.psnr:.2f} dB ({rated('psnr')}), mouth {figures.mouth_psnr:.2f} dB, its opening r {figures.mouth_r:.3f} "
        f"({rated('mouth_r')}; {np.round(figures.mouth_r_of_truth, 3)} in the true pictures)"
    )
