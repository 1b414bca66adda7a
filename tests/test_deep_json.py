"""JSON that is nested too deep for Python's parser is refused by the name of its file, wherever JSON is read."""

from collections.abc import Callable
from pathlib import Path

import pytest
from etils import epath

from itjax.configs import matching
from itjax.errors import UserError
from itjax.preparation.folder import ScanFile, _check_arguments
from itjax.preparation.videos import Video, read_boxes
from itjax.records import from_records, open_dataset
from itjax.training.metrics import _truncate
from itjax.training.result import open_result
from itjax.training.run_folder import is_run_folder, write_or_compare
from itjax.weights.store import open_checkpoint, read_metadata

DEEP = '{"a":' * 100_000

READERS: dict[str, Callable[[Path], object]] = {
    "config.json": lambda path: matching(path.parent),
    "sizes.json": lambda path: read_metadata(path.parent),
    "_METADATA": lambda path: open_checkpoint(path.parent),
    "dataset.json": lambda path: open_dataset(path.parent),
    "x.boxes.json": lambda path: read_boxes(Video("x", path, None, (path, path), path, None)),
    "arguments.json": lambda path: _check_arguments(path, path.parent, {}),
    "scan.jsonl": ScanFile,
    "metrics.jsonl": lambda path: _truncate(path, 1),
}


@pytest.mark.parametrize("name", READERS)
def test_deep_json_is_refused(name, tmp_path):
    (tmp_path / name).write_text(f"{DEEP}\n" * 2)
    with pytest.raises(UserError, match=str(tmp_path)):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("content", [DEEP, "[]", '"training"', '{"training": 3}'], ids=range(4))
def test_the_configuration_of_a_run(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    assert is_run_folder(tmp_path) == ('{"training' in content)
    with pytest.raises(UserError, match=r"config\.json"):
        open_result(tmp_path)
    with pytest.raises(UserError, match=r"config\.json"):
        write_or_compare(epath.Path(tmp_path), {"identity": ""}, "--run")


def test_a_record():
    header = DEEP.encode()
    with pytest.raises(ValueError, match="not a record of a clip"):
        from_records(len(header).to_bytes(8, "little") + header, lambda number, nbytes: b"")
