"""A training of the small VAE: the steps, its measurements, and the result."""

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from itjax.config import VaeSizes
from itjax.errors import UserError
from itjax.media.containers import FRAME_RATE
from itjax.progress import Progress
from itjax.synthetic.source import DrawnClips
from itjax.training import curve, small_loop
from itjax.training.card import provenance
from itjax.training.curve import Panel
from itjax.training.run import End
from itjax.training.small_loop import Ended, Metrics, Plan
from itjax.training.state import TrainState
from itjax.training.vae import fold, measure, objective, result
from itjax.training.vae.frames import DrawnFrames
from itjax.training.vae.objective import Recipe
from itjax.training.vae.start import CHAIN, initial_parameters

STATISTICS_SEED = 8
STATISTICS_CLIPS, STATISTICS_FRAMES = 64, 33  # of training people, over which the latents are made standard
VALIDATION_CLIPS, TEST_CLIPS = 6, 12
GATE = {"psnr": 27.0, "mouth_r": 0.9}
AIM = {"psnr": 30.0, "mouth_r": 0.95}
CURVES = (
    Panel("loss", ("loss",), log=True),
    Panel("people kept out: PSNR, dB", ("validation/psnr", "validation/mouth_psnr"), level=GATE["psnr"]),
    Panel("people kept out: r of the mouth's opening", ("validation/mouth_r",), level=GATE["mouth_r"]),
)


@dataclass(frozen=True)
class Training:
    """What determines a trained VAE, besides versions and machine.

    Attributes:
        recipe: How it is trained.
        sizes: Of the network.
        size: Height and width of the drawn pictures, pixels.
        seed: Random seed of weights, noise and data.
    """

    recipe: Recipe
    sizes: VaeSizes
    size: int = 64
    seed: int = 0

    def __post_init__(self):
        stride = self.sizes.spatial_stride
        if self.sizes.dim < CHAIN:
            raise UserError(f"--dim {self.sizes.dim}: must be at least {CHAIN}")
        if self.size < 2 * stride or self.size % stride:
            raise UserError(f"--size {self.size}: must be a multiple of {stride}, and at least {2 * stride}")


def train(training: Training, plan: Plan, progress: Progress) -> End:
    """Starts or continues a training in `plan.out`. After its last step, writes `plan.out`/result and curve.png.

    If the minutes are over before, only the curve is written.

    Raises:
        UserError: If the settings, the folder or the installation do not permit it, or the loss is not finite.
        OutputError: If a file cannot be written.
    """
    curve.check_matplotlib()
    with ExitStack() as stack:
        frames = stack.enter_context(DrawnFrames(training.seed, training.size))
        work = _Work(training, frames)
        settings = {"trainer": "vae", **asdict(training)}
        ended = small_loop.run(plan, settings, work.initial, work.step, work.measure, progress)
        if ended.end is not End.INTERRUPTED:
            curve.write(plan.out, CURVES)
        if ended.end is not End.DONE or (plan.out / "result").exists():
            return ended.end
        parameters = work.folded(ended.state)
        clips = measure.held_out(TEST_CLIPS, training.size, "test", measure.FRAMES)
        figures, made = measure.evaluate(parameters, training.sizes, clips)
        card = _card(training, figures, ended)
        result.write_result(plan.out / "result", parameters, training.sizes, card, clips.video, made)
        progress.notice(f"{plan.out / 'result'}: {_verdict(figures)}")
    return ended.end


class _Work:
    """The steps and measurements of a training."""

    def __init__(self, training: Training, frames: DrawnFrames):
        self._training, self._frames = training, frames
        self._step = objective.compile_step(training.sizes, training.recipe, training.seed)
        self._held_out: measure.HeldOut | None = None
        self._statistics: list[np.ndarray] = []

    def initial(self) -> TrainState:
        parameters = initial_parameters(self._training.sizes, self._training.seed)
        return objective.initial_state(parameters, self._training.recipe)

    def step(self, state: TrainState, done: int) -> tuple[TrainState, Metrics]:
        recipe, frames = self._training.recipe, self._frames
        began, cpu, waited, drawing = time.perf_counter(), time.process_time(), frames.waited, frames.drawing
        pictures = done < recipe.image_steps
        shape = (recipe.images, 1) if pictures else (recipe.clips, recipe.clip_frames)
        batch = frames.batch(done, *shape)
        weight = jnp.float32(1.0 if pictures else recipe.mouth_weight)
        state, values = self._step(state, batch.video, batch.region, weight)
        metrics = {name: float(value) for name, value in values.items()}  # waits for the step
        return state, metrics | {
            "step/seconds": time.perf_counter() - began,
            "step/core_seconds": time.process_time() - cpu,
            "step/waiting_for_data": frames.waited - waited,
            "step/drawing_core_seconds": frames.drawing - drawing,
        }

    def measure(self, state: TrainState) -> Metrics:
        if self._held_out is None:
            self._held_out = measure.held_out(VALIDATION_CLIPS, self._training.size, "validation", measure.FRAMES)
        figures, _ = measure.evaluate(self.folded(state), self._training.sizes, self._held_out)
        return {f"validation/{name}": value for name, value in figures._asdict().items()}

    def folded(self, state: TrainState) -> dict[str, Any]:
        """The parameters, with latents that are standard over training clips."""
        if not self._statistics:
            size, count = self._training.size, STATISTICS_CLIPS
            clips = DrawnClips(STATISTICS_SEED, count, STATISTICS_FRAMES / FRAME_RATE, (size, size))
            self._statistics = [clips[number]["video"][None] for number in range(count)]
        sizes = self._training.sizes
        return fold.folded(state.trainable, *fold.latent_statistics(state.trainable, self._statistics, sizes))


def _card(training: Training, figures: measure.Figures, ended: Ended) -> dict[str, Any]:
    settings = {name: value for name, value in asdict(training).items() if name != "sizes"}
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
