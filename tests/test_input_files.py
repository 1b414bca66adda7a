"""Files from anyone: what is no regular file is not opened, and JSON that is damaged or made to do harm is one sentence."""

import os

import pytest

from itjax.errors import UserError
from itjax.input_files import JSON_DEPTH, check_file, parse_json, read_json


@pytest.mark.parametrize("reader", [read_json, lambda path: check_file(path, "a JSON file")], ids=["read", "check"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.json", "missing.json: no such file. It should be a JSON file."),
        ("folder", "folder: this is a folder"),
        ("pipe", "pipe: this is a pipe or device"),
        ("empty.json", "empty.json: the file is empty"),
        ("x" * 300, "xxx': no file can be found under this name"),
        ("a\0b", "no file can be found under this name"),
        ("\ud800.json", "no file can be found under this name"),
    ],
)
def test_only_files_are_opened(reader, name, reason, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: opening it would wait for ever
    (tmp_path / "empty.json").touch()
    with pytest.raises(UserError, match=reason) as refusal:
        reader(tmp_path / name)
    str(refusal.value).encode()  # can be printed


def test_devices_are_not_read():
    with pytest.raises(UserError, match="/dev/zero: this is a pipe or device"):
        read_json("/dev/zero")


@pytest.mark.parametrize(
    "text", [b'{"a": [1, 2.5, "\xc3\xa9", null, {"a": {}}]}', b'\xef\xbb\xbf{"a": [1]}', b"[[[]]]", b"3"]
)
def test_json_is_read_as_pythons_parser_reads_it(text, tmp_path):
    import json

    (tmp_path / "a.json").write_bytes(text)
    assert read_json(tmp_path / "a.json") == json.loads(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested more than 100 deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested more than 100 deep"),
        (b"[" * (JSON_DEPTH + 1) + b"]" * (JSON_DEPTH + 1), "nested more than 100 deep"),
        (b"[" * 100_000, "nested more than 100 deep"),
        (b'{"a": {"b": 1, "b": 2}}', 'the key "b" occurs twice'),
        (b'{"a": NaN}', "the number NaN is not finite"),
        (b'{"a": [-Infinity]}', "the number -Infinity is not finite"),
        (b'{"a": 1e999}', "the number 1e999 is not finite"),
        (b"1" * 5000, "cannot be read as JSON"),
        (b'{"a": 1', "cannot be read as JSON"),
        (b"\x00\x01\x02", "cannot be read as JSON"),
        ('{"a": 1}'.encode("utf-16"), r"not UTF-8 \(byte 1\)"),
        (b'{"a": "\xff"}', r"not UTF-8 \(byte 8\)"),
    ],
)
def test_bad_json_is_one_sentence_that_names_the_file(text, reason):
    with pytest.raises(UserError, match=f"^input.json: .*{reason}"):
        parse_json(text, "input.json")


def test_json_at_the_limits_is_read(tmp_path):
    parse_json(b"[" * JSON_DEPTH + b"]" * JSON_DEPTH, "input.json")
    (tmp_path / "a.json").write_bytes(b"[1]" + b" " * 97)
    assert read_json(tmp_path / "a.json", 100) == [1]
    with pytest.raises(UserError, match=r"a\.json: the file has more than 99 bytes"):
        read_json(tmp_path / "a.json", 99)
