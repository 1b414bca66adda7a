"""A run that is killed again and again, at moments of chance, never loses a checkpoint, and trains what it would have."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_run import checkpoints_in, numbers, saved

from itjax.commands import train
from itjax.configs import tiny
from itjax.training import random_data, run
from itjax.training.result import open_weights

ROOT = Path(__file__).parents[2]
# Each run is a fork of this process, which has imported everything, knows the network's shapes, and has no devices of JAX's
# yet, so that it has no threads of its own: a run begins its first step several seconds sooner.
# It is killed some steps after it began, within the time of about two steps: amid a step, or a save, of which there is
# always one under way. Prints the last step that it told of, and the step of the last whole checkpoint then.
FORKS = """
import os, random, signal, sys, time
from pathlib import Path
from itjax.commands import train
from itjax.configs import tiny
from itjax.models import dit

dit.abstract_parameters(tiny.PRESET.networks.dit)

def run_once(folder):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 1)
        os._exit(train.main(["tiny-fake", "--run", folder, "--steps", "1000", "--reports.log-every", "1",
            "--reports.validate-every", "0", "--checkpoints.every", "1"]))
    os.close(write)
    return child, os.fdopen(read)

draws, told = random.Random(3), 0
for _ in range(int(sys.argv[2])):
    child, lines = run_once(sys.argv[1])
    after = draws.randint(1, 3)
    for line in lines:
        if line.startswith("step "):
            told, after = int(line[5 : line.index(":")]), after - 1
            if not after:
                break
    time.sleep(draws.uniform(0, 0.3))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it ended by itself"
    told = max([told, *(int(line[5 : line.index(":")]) for line in lines if line.startswith("step "))])
    kept = [int(path.name) for path in (Path(sys.argv[1]) / "checkpoints").iterdir() if path.name.isdecimal()]
    print(told, max(kept, default=0), flush=True)
"""


@pytest.mark.soak  # test_run.py has a kill amid a save
def test_kills_at_moments_of_chance_lose_nothing_but_steps_since_the_last_save(tmp_path):
    kills = 50
    folder = tmp_path / "killed"
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", FORKS, str(folder), str(kills)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(lines) == kills
    # a step is told of before it is saved, while the one before it may still be written
    assert all(kept >= told - 2 for told, kept in lines), lines
    assert [kept for _, kept in lines] == sorted(kept for _, kept in lines), lines

    settings = replace(train.PRESETS["tiny-fake"][1], run=str(folder), steps=lines[-1][1] + 1)
    settings = replace(settings, reports=replace(settings.reports, log_every=1, validate_every=0))
    unbroken = replace(settings, run=str(tmp_path / "unbroken"))
    for one in (settings, unbroken):
        one = random_data.create_if_missing(one, tiny.PRESET)
        assert run.train(one, open_weights(Path(one.checkpoint), [])) is run.End.DONE
    assert checkpoints_in(folder)[-1] == settings.steps
    assert saved(folder, settings.steps) == saved(unbroken.run, settings.steps)
    assert numbers(folder) == numbers(unbroken.run)
