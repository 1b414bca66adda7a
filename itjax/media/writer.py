"""Saves a video chunk by chunk: constant memory, always playable, and resumable after a kill at any time.

During a run, `<name>.mp4` is a fragmented mp4 of all finished chunks, and `<name>.resume/` contains the journal: the
lengths of the files after the last finished chunk, and the loop's carry. A chunk is finished when the journal is replaced;
anything that a kill left after it is truncated. `finish` makes a plain mp4 from the same packets and removes the folder.
Independent of the model.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float, UInt8

from itjax.disk import size_text
from itjax.errors import OutputError, UserError
from itjax.media import fragments, journal, run_files, sound_track
from itjax.media.journal import Fingerprint, Journal
from itjax.media.run_files import Files
from itjax.media.sound_track import SoundTrack
from itjax.version import __version__

# n frames of a chunk · H W pixels


class VideoWriter:
    """An open run, created by `open_writer`. After an OutputError, the same chunk may be appended again."""

    def __init__(self, files: Files, fmt: fragments.Format, kept: Journal, finished: bool, lock: int | None):
        self.files, self.finished = files, finished
        self._format, self._journal, self._lock = fmt, kept, lock
        self._packets: Iterator[bytes] = iter(())
        self._packets_taken = -1  # number of packets before the next one of `_packets`; -1: not started

    @property
    def next_chunk(self) -> int:
        """Index of the chunk to append next."""
        return self._journal.chunks

    @property
    def frames_done(self) -> int:
        """Number of frames saved so far."""
        return self._journal.frames

    @property
    def state(self) -> dict[str, np.ndarray] | None:
        """The `state` of the last `append`; None before the first chunk."""
        return self._journal.state

    def append(
        self,
        frames: UInt8[np.ndarray, "n H W 3"],
        floats: Float[np.ndarray, "n H W 3"] | None,
        state: dict[str, np.ndarray],
    ) -> None:
        """Saves one chunk atomically. `floats`, in -1..1, must be given exactly if the run saves float frames.

        Raises:
            OutputError: if writing fails; the previous chunks stay saved and playable.
        """
        self._check(frames, floats)
        old, fmt = self._journal, self._format
        total = old.frames + len(frames)
        sound = self._sound_until(total)
        data = fragments.fragment(fmt, fragments.Counts(old.chunks, old.frames, old.packets), frames, sound)
        new = old._replace(
            chunks=old.chunks + 1,
            frames=total,
            packets=old.packets + len(sound),
            video_bytes=old.video_bytes + len(data),
            state=state,
        )
        try:
            journal.prepare(self.files.folder, new)
            if self.files.array and floats is not None:
                run_files.append_array(self.files.array, old.frames, floats)
            journal.append(self.files.video, old.video_bytes, data)
            journal.commit(self.files.folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                run_files.truncate(self.files, old.frames, old.video_bytes, (fmt.height, fmt.width))
            raise OutputError(self._failure(error)) from error
        self._journal = new

    def finish(self) -> Path:
        """Makes a plain mp4 from the same packets, index first, and deletes the journal; returns the video's path.

        Raises:
            ValueError: if no chunk was appended.
            OutputError: if writing fails.
        """
        if self.finished:
            return self.files.video
        if not self.frames_done:
            raise ValueError("A video without frames cannot be finished.")
        whole = self.files.folder / "whole.mp4"
        try:
            needed, free = self.files.video.stat().st_size, shutil.disk_usage(self.files.folder).free
            if free < needed:
                reason = f"the finished file needs {size_text(needed)} besides, but only {size_text(free)} are free"
                raise OSError(errno.ENOSPC, reason, str(self.files.video))
            os.close(journal.create(whole))  # FFmpeg would follow a link
            fragments.defragment(self.files.video, whole, finished_mark(self._journal.mark))
            journal.replace(whole, self.files.video)
        except (OSError, av.error.FFmpegError) as error:
            with contextlib.suppress(OSError):
                whole.unlink()
            raise OutputError(self._failure(error)) from error
        self.finished = True
        journal.remove(self.files.folder)
        self.close()
        return self.files.video

    def close(self) -> None:
        """Unlocks the run for other processes. An unfinished run stays resumable; of one without a chunk nothing is left."""
        if self._lock is not None:
            if not self._journal.chunks:
                with contextlib.suppress(OSError):
                    self.files.folder.rmdir()  # unless it holds something
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, frames: np.ndarray, floats: np.ndarray | None) -> None:
        if self.finished:
            raise ValueError(f"{self.files.video} is already finished.")
        shape = (len(frames), self._format.height, self._format.width, 3)
        if not len(frames) or frames.shape != shape or frames.dtype != np.uint8:
            raise ValueError(f"Frames are {frames.dtype} {frames.shape}, not uint8 {shape} with at least one frame.")
        if (floats is None) != (self.files.array is None) or (floats is not None and floats.shape != shape):
            given = None if floats is None else floats.shape
            raise ValueError(f"Float frames are {given}; the run saves to {self.files.array}, with frames {shape}.")

    def _sound_until(self, frames: int) -> list[bytes]:
        """The packets from the end of the last chunk until the audio covers `frames` frames."""
        sound, done = self._format.sound, self._journal.packets
        if sound is None:
            return []
        if self._packets_taken != done:  # a resumed run, or a chunk that could not be written
            self._packets = islice(sound_track.packets(sound), done, None)
        self._packets_taken = sound_track.packets_for(sound, frames, self._format.fps)
        return list(islice(self._packets, self._packets_taken - done))

    def _failure(self, error: Exception) -> str:
        file, reason = getattr(error, "filename", None) or self.files.video, getattr(error, "strerror", None) or error
        frames, seconds = self.frames_done, self.frames_done / self._format.fps
        if not frames:
            return f"{file} cannot be written: {reason}. No chunk was finished yet, so nothing was saved."
        if not self.files.video.exists():
            return (
                f"{file} cannot be written: {reason}. {self.files.video} was deleted or moved during the run: the {frames} "
                "frames in it are lost. Run the same command again to start over."
            )
        saved = f"{frames} frames ({seconds:.2f} s) are saved in {self.files.video}, which is playable"
        if not self.files.folder.exists():
            return (
                f"{file} cannot be written: {reason}. {saved}, but {self.files.folder} was deleted during the run, without "
                "which it cannot be continued. Rename the video to keep it, and start over."
            )
        return (
            f"{file} cannot be written: {reason}. {saved}. Free some space, then run the same command with --resume to "
            "continue."
        )


def open_writer(
    save_file: str | Path,
    size: tuple[int, int],
    fps: int,
    sound: SoundTrack | None,
    fingerprint: Fingerprint,
    resume: bool,
    save_frames: str | Path | None = None,
    num_frames: int = 0,
) -> VideoWriter:
    """Starts a run, or continues it with `resume` (from the beginning if there is none).

    Args:
        save_file: the mp4, with or without the file extension.
        size: height and width in pixels, both even.
        fps: frames per second.
        sound: the speech; padded with silence or cut to the length of the video.
        fingerprint: everything that determines the frames; a run can only be continued with an equal one.
        resume: continue an unfinished run; a finished one is detected (`VideoWriter.finished`).
        save_frames: an .npy in which to save the float frames, too.
        num_frames: frames of the whole video, for which there must be room; 0: not known.

    Raises:
        UserError: if a path cannot be written, or an unfinished run exists without `resume` or with another fingerprint.
        OutputError: if the disk has no room for the video.
    """
    height, width = size
    if height % 2 or width % 2 or min(size) < 2:
        raise UserError(f"The frames are {height} x {width} (height x width); H.264 requires even numbers.")
    if sound is not None:
        sound_track.check(sound)
    files = run_files.output_files(save_file, save_frames)
    own: dict[str, str | int | float] = {
        "frame size": f"{height}x{width}",
        "frames a second": fps,
        "sound": f"{sound.sample_rate} Hz, {sound.channels} channels" if sound else "none",
        "saved frames": files.array.name if files.array else "none",
    }
    versions = {"encoder": fragments.ENCODER, journal.VERSION_KEY: __version__}
    fresh = Journal(journal.digest({**fingerprint, **own}), {**fingerprint, **own, **versions})
    fmt = fragments.Format(height, width, fps, sound, running_mark(fresh.mark))
    with _unwritable(files):
        lock = run_files.lock(files)
    try:
        with _unwritable(files):
            run_files.check_writable(files)
            kept, finished = _kept(files, fmt, fresh, resume)
            if kept.chunks:
                run_files.truncate(files, kept.frames, kept.video_bytes, size)
            if not finished:
                run_files.check_room(files, size, max(0, num_frames - kept.frames))
    except BaseException:
        with contextlib.suppress(OSError):
            files.folder.rmdir()  # unless it holds a run
        os.close(lock)
        raise
    if finished:
        journal.remove(files.folder)
    return VideoWriter(files, fmt, kept, finished, lock)


@contextlib.contextmanager
def _unwritable(files: Files) -> Iterator[None]:
    """Turns an OSError in the block into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or files.video} cannot be written: {error.strerror}.") from error


def _kept(files: Files, fmt: fragments.Format, fresh: Journal, resume: bool) -> tuple[Journal, bool]:
    """The journal to continue from, and whether the video is already finished. Raises UserError if they conflict."""
    found, comment = journal.load(files.folder), fragments.read_comment(files.video)
    if found and comment == finished_mark(found.mark):  # killed between the last rename and the removal of the folder
        journal.clear(files.folder)
        found = None
    if found is None:
        complete = comment == finished_mark(fresh.mark) and (files.array is None or files.array.exists())
        return fresh, resume and complete
    if not resume:
        raise UserError(
            f"{files.video} is unfinished: {found.frames} frames of an earlier run are saved. "
            f"Add --resume to continue it, or delete {files.folder} to start over."
        )
    if changed := journal.differences(found.fingerprint, fresh.fingerprint):
        raise UserError(
            f"{files.video} was started with other settings:\n{changed}\n"
            f"Continue with the earlier settings, or delete {files.folder} to start over."
        )
    lengths = {files.video: found.video_bytes} | run_files.array_length(files, found.frames, (fmt.height, fmt.width))
    short = [file for file, length in lengths.items() if not file.exists() or file.stat().st_size < length]
    if short or comment != fmt.comment:
        raise UserError(
            f"{short[0] if short else files.video} is not the file that {files.folder} belongs to. "
            f"Restore that file, or delete {files.folder} to start over."
        )
    packets = sound_track.packets_for(fmt.sound, found.frames, fmt.fps) if fmt.sound else 0
    fragment_count = fragments.count(files.video, found.video_bytes)
    if (found.mark, found.packets, found.chunks) != (fresh.mark, packets, fragment_count):
        raise UserError(
            f"{files.folder / journal.STATE_FILE} contradicts {files.video}: it was damaged or edited. "
            f"Restore it, or delete {files.folder} to start over."
        )
    return found, False


def running_mark(mark: str) -> str:
    """The comment in an unfinished video."""
    return f"itjax unfinished {mark}"


def finished_mark(mark: str) -> str:
    """The comment in a finished video, which tells a later run that there is nothing left to do."""
    return f"itjax {mark}"
