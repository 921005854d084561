"""Where a muxer writes to: a file, or a program of its own that carries the bytes to the network."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import OutputContainer

from engine.offline.credentials import Credentials
from server.sending.senders import SendingFailed
from server.targets import SUFFIXES, Address, TargetRefused

END_S = 5.0  # a program may take so long to end after the last byte
FLUSHED = {"flush_packets": "1"}
# An MP4 that is whole up to its last second even if the process is killed, and a usual one in the end.
MP4 = {"movflags": "hybrid_fragmented"}
MATROSKA = {"cluster_time_limit": "1000"}


class FileCarrier:
    """A new file, signed in the end.

    Raises:
        TargetRefused: there is one of that name, or it cannot be made.
    """

    finish_s = 60.0  # for what is left in the end: a long file is read again to be signed

    def __init__(self, path: Path, credentials: Credentials | None = None) -> None:
        self._path, self._credentials = path, credentials
        try:
            self._file = path.open("xb", buffering=0)
        except FileExistsError:
            raise TargetRefused("target_exists", f"{path.name} is there already") from None
        except OSError as error:
            said = f"{path.name} cannot be made: {error.strerror}"
            raise TargetRefused("bad_target", said) from None

    @contextmanager
    def opened(self) -> Iterator[OutputContainer]:
        """The container, closed, whole and signed after the block."""
        kind = SUFFIXES[self._path.suffix]
        options = {**FLUSHED, **(MP4 if kind == "mp4" else MATROSKA)}
        with self._file, av.open(self._file, "w", format=kind, options=options) as container:
            yield container
        if self._credentials is not None:
            self._credentials.sign(self._path)

    def discard(self) -> None:
        """Nothing was written: leave no empty file."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def kill(self) -> None:
        """A file cannot be hurried."""


class ProgramCarrier:
    """A program that takes a container from its standard input.

    Args:
        format: of that container.
        greeting: what it reads before.
        hide: turns what it says into what everybody may read.
    """

    finish_s = 4.0

    def __init__(
        self, command: list[str], format: str, greeting: bytes, hide: Callable[[str], str]
    ) -> None:
        self._format, self._hide = format, hide
        self._said: deque[bytes] = deque(maxlen=4)
        # A session of its own: Ctrl-C ends the server, which sends the rest first.
        self._program = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        self._greeting = greeting

    @contextmanager
    def opened(self) -> Iterator[OutputContainer]:
        """The container; after the block everything is sent. Raises `SendingFailed`."""
        pipe = self._program.stdin
        assert pipe is not None
        try:
            with pipe:
                pipe.write(self._greeting)
                with av.open(pipe, "w", format=self._format, options=FLUSHED) as container:
                    yield container
        except (BrokenPipeError, av.FFmpegError) as error:  # it ended, which says more
            raise SendingFailed(self._last_words() or str(error)) from None
        if (code := self._ended()) != 0:
            raise SendingFailed(self._last_words() or f"the sending program ended with {code}")

    def discard(self) -> None:
        """Nothing was sent."""
        self.kill()
        self._ended()

    def kill(self) -> None:
        """End it at once: it takes nothing any more."""
        self._program.kill()

    def _listen(self) -> None:
        assert self._program.stderr is not None
        with self._program.stderr as lines:
            self._said.extend(lines)

    def _ended(self) -> int:
        try:
            code = self._program.wait(END_S)
        except subprocess.TimeoutExpired:
            self._program.kill()
            code = self._program.wait()
        self._reader.join()
        return code

    def _last_words(self) -> str:
        self._ended()
        lines = [line.decode(errors="replace").strip() for line in self._said]
        return self._hide(next((line for line in reversed(lines) if line), ""))[:300]


Carrier = FileCarrier | ProgramCarrier


def ffmpeg() -> str:
    """The program that speaks SRT; raises `TargetRefused`: there is none."""
    if (found := shutil.which("ffmpeg")) is not None:
        return found
    try:
        import imageio_ffmpeg
    except ImportError:
        raise TargetRefused(
            "bad_target",
            "SRT needs the program ffmpeg: install it, or pip install imageio-ffmpeg",
        ) from None
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def network_carrier(target: Address) -> ProgramCarrier:
    """The program that speaks that protocol; raises `TargetRefused`: it is not installed."""

    def hide(said: str) -> str:
        return said.replace(target.url, target.shown)

    if target.scheme in ("rtmp", "rtmps"):
        command = [sys.executable, "-P", "-m", "server.sending.rtmp_out"]
        return ProgramCarrier(command, "flv", f"{target.url}\n".encode(), hide)
    quiet = ["-hide_banner", "-loglevel", "error", "-nostdin"]
    live = ["-probesize", "65536", "-analyzeduration", "500000"]
    out = ["-c", "copy", "-f", "mpegts", target.url]
    command = [ffmpeg(), *quiet, *live, "-f", "mpegts", "-i", "pipe:0", *out]
    return ProgramCarrier(command, "mpegts", b"", hide)
