"""Two processes, which meet over `jax.distributed`, train the steps of one; and neither outlives the other."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny_dataset
from etils import epath
from jax.experimental import multihost_utils
from test_run import checkpoints_in, numbers

from itjax.commands import train
from itjax.errors import UserError
from itjax.training import run
from itjax.training.checkpoints import check_shared
from itjax.training.config import Checkpoints

ROOT = Path(__file__).parents[2]
BEGUN = 2  # steps done by one process before the two go on


@pytest.fixture(scope="module")
def alone(weights, checkpoint, tmp_path_factory):
    """alone(steps): settings of a run of so many steps by one process with one device."""
    folder = tmp_path_factory.mktemp("alone")
    dataset = tiny_dataset.make_dataset(folder / "data", sizes=((32, 64),))
    preset = train.PRESETS["tiny"][1]
    reports = replace(preset.reports, log_every=1, validate_every=0, sample_every=0)
    paths = {"data": str(dataset.folder), "checkpoint": str(checkpoint)}
    settings = replace(preset, reports=reports, checkpoints=Checkpoints(every=1000, keep=1000), **paths)

    def trained(steps):
        run_folder = folder / str(steps)
        if not run_folder.exists():
            assert run.train(replace(settings, run=str(run_folder), steps=steps), weights) is run.End.DONE
        return replace(settings, run=str(run_folder))

    return trained


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@contextmanager
def two_processes(alone, devices, folder, runs=("run", "run")):
    """They go on after step 2 with a copy of the one process's run in `folder`, and save every second step.

    `runs`: the run's folder as each of them sees it; the copy is the first one's.
    """
    settings = alone(BEGUN)
    shutil.copytree(settings.run, folder / runs[0])
    flags = {"data": settings.data, "checkpoint": settings.checkpoint, "steps": 10**6}
    flags |= {"checkpoints.every": 2, "checkpoints.keep": 1000, "reports.log-every": 1}
    flags |= {"reports.validate-every": 0, "reports.sample-every": 0}
    flags |= {"processes.coordinator": f"127.0.0.1:{free_port()}", "processes.count": 2}
    processes = []
    try:
        for index in range(2):
            given = [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
            own = ["--run", str(folder / runs[index]), "--processes.index", str(index)]
            call = [sys.executable, "train.py", "tiny", *given, *own]
            with (folder / f"{index}.txt").open("w") as out:
                processes.append(subprocess.Popen(call, cwd=ROOT, env=devices(2), stdout=out, stderr=subprocess.STDOUT))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def until_done(step, folder, processes):
    """Waits for the line of a step."""
    deadline = time.monotonic() + 400
    while f"step {step}: " not in (folder / "0.txt").read_text():
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes), told(folder)
        time.sleep(0.01)


def told(folder):
    return "\n".join((folder / f"{index}.txt").read_text() for index in range(2))


def ended(processes, folder, seconds):
    try:
        return [process.wait(seconds) for process in processes]
    except subprocess.TimeoutExpired:
        raise AssertionError(f"a process is still there after {seconds} s\n{told(folder)}") from None


def arrays(folder, step, like=None):
    return ocp.StandardCheckpointer().restore(Path(folder) / "checkpoints" / str(step) / "state", like)


def check_equal(folder, alone, step):
    """The state after the step, and the numbers of all steps until then, to float32 rounding: two devices a process and
    other programs sum in another order, over some steps."""
    one_process = alone(step).run
    theirs = arrays(one_process, step)
    ours = dict(jax.tree_util.tree_leaves_with_path(arrays(folder, step, theirs)))
    assert len(ours) > 50
    for place, expected in jax.tree_util.tree_leaves_with_path(theirs):
        path, least = jax.tree_util.keystr(place), 1e-7
        if "audio_kv']['bias" in path and "optimizer" not in path:
            # no softmax sees the keys' bias: its gradient is but rounding, of which Adam makes steps of its rate
            least = 2 * sum(line["learning_rate"] for line in numbers(one_process)[BEGUN:step])
        error, scale = np.abs(ours[place] - expected).max(), np.abs(expected).max()
        assert error <= 5e-6 * scale + least, (path, error, scale)
    for line, expected in zip(numbers(folder)[:step], numbers(one_process), strict=True):
        assert line == pytest.approx(expected, rel=2e-5)


@pytest.mark.slow
def test_two_processes_train_the_steps_of_one_until_one_of_them_is_asked_to_end(alone, devices, tmp_path):
    with two_processes(alone, devices, tmp_path) as processes:
        until_done(BEGUN + 2, tmp_path, processes)
        processes[1].send_signal(signal.SIGTERM)
        assert ended(processes, tmp_path, 400) == [train.PREEMPTED] * 2, told(tmp_path)
    last = checkpoints_in(tmp_path / "run")[-1]
    assert last >= BEGUN + 2
    assert f"resuming after step {BEGUN}\n" in told(tmp_path)
    assert told(tmp_path).count(f"step {last} is saved; run the same command to continue") == 1
    check_equal(tmp_path / "run", alone, last)


@pytest.mark.slow
def test_no_process_waits_for_one_that_is_dead(alone, devices, tmp_path):
    with two_processes(alone, devices, tmp_path) as processes:
        until_done(BEGUN + 3, tmp_path, processes)
        while BEGUN + 2 not in checkpoints_in(tmp_path / "run"):  # written while training goes on
            assert all(process.poll() is None for process in processes), told(tmp_path)
            time.sleep(0.01)
        processes[1].kill()
        status, _ = ended(processes, tmp_path, 400)
    assert status not in (0, train.PREEMPTED)
    last = checkpoints_in(tmp_path / "run")[-1]
    assert last > BEGUN
    check_equal(tmp_path / "run", alone, last)


@pytest.mark.slow
def test_processes_without_a_shared_file_system_are_told(alone, devices, tmp_path):
    with two_processes(alone, devices, tmp_path, runs=("run", "another machine's")) as processes:
        statuses = ended(processes, tmp_path, 400)
    assert 2 in statuses and 0 not in statuses, told(tmp_path)  # one may end the other before it has told
    seen = f"as seen by process 0: step {BEGUN}, 1: no such folder"
    assert "checkpoints must be on a file system that all processes share, or gs://, but the last" in told(tmp_path)
    assert seen in told(tmp_path) and not (tmp_path / "another machine's").exists()
    assert checkpoints_in(tmp_path / "run") == [BEGUN]


@pytest.mark.parametrize(("other", "seen"), [([1, 4], "1: step 4"), ([1, -1], "1: none"), ([0, -1], "1: no such folder")])
def test_checkpoints_that_not_all_processes_see(monkeypatch, tmp_path, other, seen):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "sync_global_devices", lambda name: None)
    both = lambda of_other: lambda own: np.asarray([own, of_other or own], np.int32)
    (tmp_path / "2").mkdir()
    monkeypatch.setattr(multihost_utils, "process_allgather", both(None))
    check_shared(epath.Path(tmp_path))
    monkeypatch.setattr(multihost_utils, "process_allgather", both(other))
    with pytest.raises(UserError, match=f"{tmp_path} must be on a file system .* process 0: step 2, {seen}"):
        check_shared(epath.Path(tmp_path))
