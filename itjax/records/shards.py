"""The ArrayRecord files of a dataset: writing them, and reading their clips by number."""

import itertools
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import grain
from array_record.python.array_record_module import ArrayRecordWriter

from itjax.disk import atomic_path, output_errors
from itjax.errors import OutputError, UserError
from itjax.records.clip import Clip, from_records, record_count
from itjax.records.dataset import Bucket, Dataset


def write_shard(path: Path, clips: Iterable[Iterable[bytes]]) -> None:
    """Writes the records of clips to one file, which appears only when it is complete.

    Raises:
        OutputError: if writing fails (full disk).
    """
    with atomic_path(path) as temporary, output_errors(path):
        # one record per group, as single records are read at random; no compression, as float16 noise does not compress
        writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
        try:
            for data in itertools.chain.from_iterable(clips):
                writer.write(data)
            writer.close()
        except RuntimeError as error:  # the library's exception for I/O errors
            raise OutputError(f"cannot write {path}: {error}") from error


class Records:
    """The clips of one bucket by number, for grain. Files are opened on demand, separately in every process."""

    def __init__(self, dataset: Dataset, bucket: Bucket):
        count = partial(record_count, layout=dataset.layout)
        self._locations: list[tuple[Path, int]] = []  # the file of each clip, and the number of its first record
        for shard in bucket.shards:
            ends = itertools.accumulate(map(count, shard.num_frames))
            self._locations += [(dataset.folder / shard.path, first) for first in (0, *ends)][:-1]
        self._sources: dict[Path, grain.sources.ArrayRecordDataSource] = {}

    def __len__(self) -> int:
        return len(self._locations)

    def __getitem__(self, index: int) -> Clip:
        """The clip; its LAZY_FIELDS are read on demand.

        Raises:
            UserError: if the record cannot be read; the message names the file and the record. LAZY_FIELDS raise likewise.
        """
        path, first = self._locations[index]
        data = self._read(path, first)
        try:
            return from_records(data, lambda number, nbytes: self._read(path, first + number, nbytes))
        except ValueError as error:
            raise _unreadable(path, first, error) from error

    def _read(self, path: Path, record: int, nbytes: int | None = None) -> bytes:
        try:
            if path not in self._sources:
                self._sources[path] = grain.sources.ArrayRecordDataSource([str(path)])
            data = self._sources[path][record]
        except Exception as error:  # the library raises bare Exceptions and RuntimeErrors for damaged files
            raise _unreadable(path, record, error) from error
        if nbytes is not None and len(data) != nbytes:
            raise _unreadable(path, record, f"{len(data)} bytes instead of {nbytes}")
        return data

    def __repr__(self) -> str:
        return f"Records({len(self)} clips)"

    def __getstate__(self) -> dict[str, Any]:
        return {"_locations": self._locations, "_sources": {}}


def _unreadable(path: Path, record: int, reason: object) -> UserError:
    return UserError(
        f"{path}: record {record} cannot be read ({reason}). Delete this file and dataset.json, then prepare the dataset "
        "again, which recreates only the missing file."
    )
