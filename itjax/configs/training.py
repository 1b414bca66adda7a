"""Training presets: the defaults of `train.py PRESET`. Every value can be overridden on the command line."""

from dataclasses import replace

from itjax.config import Sampler
from itjax.configs import small
from itjax.training.config import (
    Checkpoints,
    Dropout,
    Optimizer,
    Reports,
    TimeDistribution,
    TrainedParameters,
    Training,
)

PUBLISHED = Training()

# the tiny networks of the test recordings, on a CPU: takes minutes, and the samples are noise
TINY = Training(
    steps=100,
    batch=4,
    dtype="float32",
    remat="none",
    dropout=Dropout(),
    times=TimeDistribution(shift=3.0),
    optimizer=Optimizer(learning_rate=1e-3, warmup_steps=10, ema=0.99),
    reports=Reports(
        log_every=10, validate_every=50, validation_clips=1, sample_every=100, sampler=Sampler(steps=4), sample_seconds=4.0
    ),
    checkpoints=Checkpoints(every=50),
)

# random numbers instead of videos and weights: tests the installation in under a minute
TINY_FAKE = replace(
    TINY,
    made_up=True,
    run="runs/tiny-fake",
    steps=40,
    region_weight=4.0,
    reports=replace(TINY.reports, validate_every=20, sample_every=0),
    checkpoints=Checkpoints(every=20),
)

# the small networks from nothing, on drawn people (recipes/small): the mouth is few of the pixels and all of the task. On a
# GPU with dtype bfloat16 and a larger batch
SMALL_STEPS = 8000
SMALL = Training(
    steps=SMALL_STEPS,
    batch=16,
    region_weight=5.0,
    dtype="float32",
    remat="none",
    dropout=Dropout(text=0.1, audio=0.12, both=0.03),
    times=TimeDistribution(law="uniform", shift=2.5),
    trained=TrainedParameters(parts="full"),
    optimizer=Optimizer(learning_rate=1e-3, warmup_steps=200, decay_steps=SMALL_STEPS, beta2=0.99),
    reports=Reports(log_every=50, validate_every=1000, validation_clips=16, sample_every=0, sampler=small.PRESET.sampler),
    checkpoints=Checkpoints(every=1000),
)

LORA = Training(
    trained=TrainedParameters(parts="lora", lora_rank=128),
    optimizer=Optimizer(learning_rate=1e-4),
)

FULL = Training(
    trained=TrainedParameters(parts="full"),
    optimizer=Optimizer(learning_rate=1e-5, warmup_steps=1000),
)

PRESETS = {
    "infinitetalk-14b": ("trains the audio adapter and audio attention, the rest is frozen (as published)", PUBLISHED),
    "infinitetalk-14b-lora": ("trains a LoRA of rank 128 on attention and MLP layers", LORA),
    "infinitetalk-14b-full": ("trains all parameters of the DiT", FULL),
    "small": ("the small networks from nothing, on drawn people: see recipes/small", SMALL),
    "tiny": ("tiny networks of the test recordings, on a CPU", TINY),
    "tiny-fake": ("the same with random data and weights: needs no dataset and no checkpoint", TINY_FAKE),
}
