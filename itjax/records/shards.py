"""The ArrayRecord files of a dataset: writing them, and reading their clips by number."""

import errno
import itertools
import os
from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path

import grain
from array_record.python.array_record_module import ArrayRecordWriter

from itjax.disk import atomic_path, output_errors
from itjax.errors import OutputError, UserError
from itjax.records.clip import Clip, from_records, record_count
from itjax.records.dataset import Bucket, Dataset

MAX_OPEN = 64  # shards open at once in a process, of all buckets: a dataset may have more shards than a process may open


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
    """The clips of one bucket by number, for grain. Files are opened on demand, separately in every process.

    Threads may read at the same time.
    """

    def __init__(self, dataset: Dataset, bucket: Bucket):
        count = partial(record_count, layout=dataset.layout)
        self._locations: list[tuple[Path, int]] = []  # the file of each clip, and the number of its first record
        for shard in bucket.shards:
            ends = itertools.accumulate(map(count, shard.num_frames))
            self._locations += [(dataset.folder / shard.path, first) for first in (0, *ends)][:-1]

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
            data = _opened(self, path)[record]
        except Exception as error:  # the library raises bare Exceptions and RuntimeErrors for damaged files
            raise _unreadable(path, record, error) from error
        if nbytes is not None and len(data) != nbytes:
            raise _unreadable(path, record, f"{len(data)} bytes instead of {nbytes}")
        return data

    def __repr__(self) -> str:
        return f"Records({len(self)} clips)"


@lru_cache(MAX_OPEN)
def _opened(owner: Records, path: Path) -> grain.sources.ArrayRecordDataSource:
    """The reader of a shard. It closes the file when nothing refers to it, so never while another thread reads from it.

    By `owner`, because the file may have been written again since an earlier `Records` opened it.
    """
    return grain.sources.ArrayRecordDataSource([str(path)])


def _unreadable(path: Path, record: int, reason: object) -> UserError:
    if os.strerror(errno.EMFILE) in str(reason):  # the library raises no OSError with a number
        return UserError(
            f"{path} cannot be opened ({reason}). Raise the limit, such as with `ulimit -n 4096`, and try again."
        )
    return UserError(
        f"{path}: record {record} cannot be read ({reason}). Delete this file and dataset.json, then prepare the dataset "
        "again, which recreates only the missing file."
    )
