"""Reads raters' answers, which come back by mail or as pasted text, and checks them against the study's key."""

import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from itjax.errors import UserError
from itjax.input_files import read_json
from itjax.study.plan import QUESTIONS, Key

ANSWERS_FORMAT = "itjax-study answers 1"
ANSWERS_BYTES = 4_000_000  # of one rater; a thousand items take 0.5 MB
RATER = re.compile("[0-9a-f]{16}")  # nothing else from a stranger's file is printed


class Answers(NamedTuple):
    """One rater's answers: {item: {question: {video: rank}}}, in the order in which the items were shown."""

    rater: str
    ranks: dict[str, dict[str, dict[str, int]]]


def read_all(paths: Sequence[Path], key: Key) -> list[Answers]:
    """The answers in files and in the folders' *.json.

    Raises:
        UserError: if there are none, one cannot be read, is damaged or of another study, or a rater's are given twice.
    """
    given: dict[str, tuple[Path, Answers]] = {}
    for path in _files(paths):
        answers = read_answers(path, key)
        if answers.rater in given:
            first, _ = given[answers.rater]
            raise UserError(
                f"{path}: the answers of rater {answers.rater} are already given in {first}. Remove one of them."
            )
        given[answers.rater] = path, answers
    return [answers for _, answers in given.values()]


def _files(paths: Sequence[Path]) -> list[Path]:
    files = []
    for path in paths:
        found = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path}: there are no answers (*.json) in this folder")
        files += found
    return files


def read_answers(path: Path, key: Key) -> Answers:
    """Reads the answers of one rater.

    Raises:
        UserError: if the file cannot be read, is of another study or was changed since the page wrote it.
    """
    content = read_json(path, ANSWERS_BYTES)
    if not isinstance(content, dict) or content.get("format") != ANSWERS_FORMAT:
        raise UserError(f"{path}: this is not a file of answers, as the study's page offers it at the end.")
    if content.get("study") != key.study:
        raise UserError(f"{path}: these are answers to another study. Give the key of that study, or leave the file out.")
    changed = UserError(f"{path}: the answers are damaged or were edited. Ask the rater for the file, or leave it out.")
    if content.pop("checksum", None) != checksum(content):
        raise changed
    rater, answers = content.get("rater"), content.get("answers")
    if not isinstance(rater, str) or not RATER.fullmatch(rater) or not isinstance(answers, list):
        raise changed
    ranks: dict[str, dict[str, dict[str, int]]] = {}
    for answer in answers:
        if not _is_answer(answer, key) or answer["item"] in ranks:
            raise changed
        shown, ranked = answer["shown"], answer["ranks"]
        ranks[answer["item"]] = {question: dict(zip(shown, each, strict=True)) for question, each in ranked.items()}
    if ranks.keys() != key.items.keys():
        raise changed
    return Answers(rater, ranks)


def _is_answer(answer: Any, key: Key) -> bool:
    """Whether it is an answer to an item of the study, with each rank given once in each question."""
    if not isinstance(answer, dict) or not isinstance(answer.get("item"), str) or answer["item"] not in key.items:
        return False
    videos, shown, ranks = key.items[answer["item"]].videos, answer.get("shown"), answer.get("ranks")
    if not isinstance(shown, list) or not all(isinstance(video, str) for video in shown) or sorted(shown) != sorted(videos):
        return False
    if not isinstance(ranks, dict) or ranks.keys() != {question.id for question in QUESTIONS}:
        return False
    return all(
        isinstance(each, list)
        and all(type(rank) is int for rank in each)
        and sorted(each) == list(range(1, len(videos) + 1))
        for each in ranks.values()
    )  # fmt: skip


def checksum(content: dict[str, Any]) -> str:
    """CRC-32 of the answers without their checksum, written as JavaScript's JSON.stringify does."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"
