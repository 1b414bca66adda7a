"""A video that is kept chunk by chunk: constant memory, playable at any moment, resumable after a kill at any moment.

While a run goes on, `<name>.mp4` is a fragmented mp4 of all finished chunks and `<name>.resume/` holds the journal: how
long the files were after the last finished chunk, and the loop's carry. A chunk counts once the journal is replaced;
what a kill left beyond it is cut off. `finish` makes a plain mp4 of the same packets and removes the folder. Knows no
model.
"""

import contextlib
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float, UInt8

from itjax.errors import OutputError, UserError
from itjax.media import fragments, journal, run_files, sound_track
from itjax.media.journal import Fingerprint, Journal
from itjax.media.run_files import Files
from itjax.media.sound_track import SoundTrack

# n frames of a chunk · H W pixels


class VideoWriter:
    """An open run; made by `open_writer`. After an OutputError the same chunk may be appended again."""

    def __init__(self, files: Files, fmt: fragments.Format, kept: Journal, finished: bool, lock: int | None):
        self.files, self.finished = files, finished
        self._format, self._journal, self._lock = fmt, kept, lock
        self._packets: Iterator[bytes] = iter(())
        self._packets_taken = -1  # how many went before the next of `_packets`; -1: not begun

    @property
    def next_chunk(self) -> int:
        """Index of the chunk to append next."""
        return self._journal.chunks

    @property
    def frames_done(self) -> int:
        """Frames kept so far."""
        return self._journal.frames

    @property
    def state(self) -> dict[str, np.ndarray] | None:
        """What the last `append` was given; None before the first chunk."""
        return self._journal.state

    def append(
        self,
        frames: UInt8[np.ndarray, "n H W 3"],
        floats: Float[np.ndarray, "n H W 3"] | None,
        state: dict[str, np.ndarray],
    ) -> None:
        """Keep one chunk, wholly or not at all. `floats`, in -1..1, exactly if the run saves frames.

        Raises:
            OutputError: when the disk refuses; the chunks before stay kept and playable.
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
                run_files.cut(self.files, old.frames, old.video_bytes, (fmt.height, fmt.width))
            raise OutputError(self._refused(error)) from error
        self._journal = new

    def finish(self) -> Path:
        """Make a plain mp4 of the same packets, index in front, and delete the journal; gives the video's path.

        Raises:
            ValueError: where no chunk was appended.
            OutputError: when the disk refuses.
        """
        if self.finished:
            return self.files.video
        if not self.frames_done:
            raise ValueError("A video of no frames cannot be finished.")
        whole = self.files.folder / "whole.mp4"
        try:
            fragments.join(self.files.video, whole, finished_mark(self._journal.mark))
            journal.replace(whole, self.files.video)
        except (OSError, av.error.FFmpegError) as error:
            with contextlib.suppress(OSError):
                whole.unlink()
            raise OutputError(self._refused(error)) from error
        self.finished = True
        journal.remove(self.files.folder)
        self.close()
        return self.files.video

    def close(self) -> None:
        """Let another process open the run. An unfinished run stays resumable."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, frames: np.ndarray, floats: np.ndarray | None) -> None:
        if self.finished:
            raise ValueError(f"{self.files.video} is finished.")
        shape = (len(frames), self._format.height, self._format.width, 3)
        if not len(frames) or frames.shape != shape or frames.dtype != np.uint8:
            raise ValueError(f"Frames are {frames.dtype} {frames.shape}, not uint8 {shape} with at least one.")
        if (floats is None) != (self.files.array is None) or (floats is not None and floats.shape != shape):
            given = None if floats is None else floats.shape
            raise ValueError(f"Float frames are {given}; the run saves to {self.files.array} frames of {shape}.")

    def _sound_until(self, frames: int) -> list[bytes]:
        """The packets from where the last chunk ended until the sound covers `frames` pictures."""
        sound, done = self._format.sound, self._journal.packets
        if sound is None:
            return []
        if self._packets_taken != done:  # a resumed run, or a chunk that could not be written
            self._packets = islice(sound_track.packets(sound), done, None)
        self._packets_taken = sound_track.packets_for(sound, frames, self._format.fps)
        return list(islice(self._packets, self._packets_taken - done))

    def _refused(self, error: Exception) -> str:
        file, reason = getattr(error, "filename", None) or self.files.video, getattr(error, "strerror", None) or error
        frames, seconds = self.frames_done, self.frames_done / self._format.fps
        if not frames:
            return f"{file} cannot be written: {reason}. No chunk was finished yet, so nothing is kept."
        return (
            f"{file} cannot be written: {reason}. {frames} frames ({seconds:.2f} s) are kept in {self.files.video}, "
            "which plays. Make room, then run the same command with --resume to go on."
        )


def open_writer(
    save_file: str | Path,
    size: tuple[int, int],
    fps: int,
    sound: SoundTrack | None,
    fingerprint: Fingerprint,
    resume: bool,
    save_frames: str | Path | None = None,
) -> VideoWriter:
    """Begin a run, or with `resume` go on with it (from the beginning where there is none).

    Args:
        save_file: the mp4, with or without the ending.
        size: height and width in pixels, both even.
        fps: frames a second.
        sound: the speech; padded with silence, or cut, to the length of the pictures.
        fingerprint: all that determines the frames; a run goes on only with the same.
        resume: go on with an unfinished run; take note (`VideoWriter.finished`) of a finished one.
        save_frames: an .npy for the float frames too.

    Raises:
        UserError: for paths that cannot be written, an unfinished run without `resume`, or one of another fingerprint.
    """
    height, width = size
    if height % 2 or width % 2 or min(size) < 2:
        raise UserError(f"The frames are {height} x {width} (height x width); H.264 takes even numbers only.")
    if sound is not None:
        sound_track.check(sound)
    files = run_files.place(save_file, save_frames)
    own: dict[str, str | int | float] = {
        "frame size": f"{height}x{width}",
        "frames a second": fps,
        "sound": f"{sound.sample_rate} Hz, {sound.channels} channels" if sound else "none",
        "saved frames": files.array.name if files.array else "none",
    }
    fresh = Journal(journal.digest({**fingerprint, **own}), {**fingerprint, **own, "encoder": fragments.ENCODER})
    lock = run_files.lock(files)
    try:
        kept, finished = _kept(files, size, fresh, resume)
        if kept.chunks:
            run_files.cut(files, kept.frames, kept.video_bytes, size)
    except BaseException as error:
        os.close(lock)
        if isinstance(error, OSError):
            raise UserError(f"{error.filename or files.video} cannot be written: {error.strerror}.") from error
        raise
    if finished:
        journal.remove(files.folder)
    fmt = fragments.Format(height, width, fps, sound, running_mark(kept.mark))
    return VideoWriter(files, fmt, kept, finished, lock)


def _kept(files: Files, size: tuple[int, int], fresh: Journal, resume: bool) -> tuple[Journal, bool]:
    """What to go on from, and whether the video is finished already; UserError where that is not what was asked for."""
    found, comment = journal.load(files.folder), fragments.comment_of(files.video)
    if found and comment == finished_mark(found.mark):  # killed between the last rename and the removal of the folder
        journal.clear(files.folder)
        found = None
    if found is None:
        complete = comment == finished_mark(fresh.mark) and (files.array is None or files.array.exists())
        return fresh, resume and complete
    if not resume:
        raise UserError(
            f"{files.video} is unfinished: {found.frames} frames of an earlier run are kept. "
            f"Add --resume to go on with it, or delete {files.folder} to start over."
        )
    if changed := journal.differences(found.fingerprint, fresh.fingerprint):
        raise UserError(
            f"{files.video} was begun with other settings:\n{changed}\n"
            f"Go on with those of before, or delete {files.folder} to start over."
        )
    lengths = {files.video: found.video_bytes} | run_files.array_length(files, found.frames, size)
    short = [file for file, length in lengths.items() if not file.exists() or file.stat().st_size < length]
    if short or comment != running_mark(found.mark):
        raise UserError(
            f"{short[0] if short else files.video} is not the file that {files.folder} was kept for. "
            f"Put that file back, or delete {files.folder} to start over."
        )
    return found, False


def running_mark(mark: str) -> str:
    """The comment in a video that is still made."""
    return f"itjax unfinished {mark}"


def finished_mark(mark: str) -> str:
    """The comment in a video that is done: it tells a later run that there is nothing left to do."""
    return f"itjax {mark}"
