"""JSON files of a preparation that are damaged or made to do harm."""

import pytest

from itjax.errors import UserError
from itjax.preparation import folder
from itjax.preparation.videos import Video, read_boxes

DEEP = "[" * 100_000


@pytest.mark.parametrize("text", [DEEP, '{"bbox": NaN}', "{", "[]", '{"bbox": {"person1": 1}}'])
def test_boxes(text, tmp_path):
    (tmp_path / "film.json").write_text(text)
    video = Video("film.mp4", tmp_path / "film.mp4", None, (None, None), tmp_path / "film.json", None)
    with pytest.raises(UserError, match=r"film\.json"):
        read_boxes(video)


@pytest.mark.parametrize("text", [DEEP, "{", "3"])
def test_arguments_of_a_stopped_preparation(text, tmp_path):
    (tmp_path / folder.WORK_FOLDER).mkdir()
    (tmp_path / folder.WORK_FOLDER / folder.ARGUMENTS_FILE).write_text(text)
    with pytest.raises(UserError, match=f"{folder.ARGUMENTS_FILE} cannot be read"), folder.open_work_folder(tmp_path, {}):
        pass


@pytest.mark.parametrize("line", [DEEP, "{", "3"])
def test_a_scan(line, tmp_path):
    (tmp_path / "scan").write_text(line + "\n")
    with pytest.raises(UserError, match="scan cannot be read"):
        folder.ScanFile(tmp_path / "scan")
