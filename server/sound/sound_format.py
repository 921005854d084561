"""The sound that doors take and give: PCM16 or G.711, at any rate; in here it is at 48 kHz."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
import numpy as np

from engine.errors import AvatarError
from server.sound.intake import SOUND_RATE_HZ, Pcm48

Encoding = Literal["pcm16", "ulaw", "alaw"]
LOWEST_HZ, HIGHEST_HZ = 8_000, 192_000
_CODECS = {"ulaw": "pcm_mulaw", "alaw": "pcm_alaw"}


class SpeechRefused(AvatarError):
    """Speech that cannot be taken; `code` says why and does not change between versions."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class SoundFormat:
    """How the bytes of an utterance are to be read: mono, little-endian.

    Raises:
        SpeechRefused: bad_format.
    """

    rate_hz: int = 24_000
    encoding: Encoding = "pcm16"

    def __post_init__(self) -> None:
        if self.encoding not in ("pcm16", "ulaw", "alaw"):
            said = f"encoding {self.encoding!r} is unknown; pcm16, ulaw or alaw"
            raise SpeechRefused("bad_format", said)
        if not LOWEST_HZ <= self.rate_hz <= HIGHEST_HZ:
            said = f"{self.rate_hz} Hz is not taken; {LOWEST_HZ} to {HIGHEST_HZ} are"
            raise SpeechRefused("bad_format", said)

    @property
    def bytes_per_second(self) -> int:
        """Of its sound."""
        return self.rate_hz * (2 if self.encoding == "pcm16" else 1)


class Decoder:
    """Bytes of one utterance to mono int16 at 48 kHz, however they are cut."""

    def __init__(self, sound: SoundFormat) -> None:
        self._rate = sound.rate_hz
        codec = _CODECS.get(sound.encoding)
        self._codec = av.CodecContext.create(codec, "r") if codec else None
        if isinstance(self._codec, av.AudioCodecContext):
            self._codec.sample_rate, self._codec.layout = sound.rate_hz, "mono"
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SOUND_RATE_HZ)
        self._left = b""
        self._pts = 0

    def seconds(self, data: bytes) -> float:
        """How long these bytes sound."""
        return len(data) / (1 if self._codec else 2) / self._rate

    def push(self, data: bytes) -> Pcm48:
        """Return the samples (N,) that these bytes complete."""
        return self._resample(self._read(data))

    def end(self) -> Pcm48:
        """Return the samples (N,) held back by the filter."""
        parts = [p.to_ndarray()[0] for p in self._resampler.resample(None)] if self._pts else []
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)

    def _read(self, data: bytes) -> Pcm48:
        if isinstance(self._codec, av.AudioCodecContext):
            frames = self._codec.decode(av.Packet(data)) if data else []
            parts = [frame.to_ndarray().reshape(-1) for frame in frames]
            return np.concatenate(parts) if parts else np.zeros(0, np.int16)
        data = self._left + data
        whole = len(data) // 2 * 2
        self._left = data[whole:]
        return np.frombuffer(data[:whole], dtype="<i2")

    def _resample(self, pcm: Pcm48) -> Pcm48:
        if len(pcm) == 0 or self._rate == SOUND_RATE_HZ:
            return pcm
        frame = _frame(pcm, self._rate, self._pts)
        self._pts += len(pcm)
        parts = [part.to_ndarray()[0] for part in self._resampler.resample(frame)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)


class Encoder:
    """Sound at 48 kHz to mono PCM16 or G.711 at another rate, as it comes."""

    def __init__(self, rate_hz: int, encoding: Encoding = "pcm16") -> None:
        self._plain = rate_hz == SOUND_RATE_HZ and encoding == "pcm16"
        codec = _CODECS.get(encoding)
        self._codec = av.CodecContext.create(codec, "w") if codec else None
        if isinstance(self._codec, av.AudioCodecContext):
            self._codec.sample_rate, self._codec.layout = rate_hz, "mono"
            self._codec.format = av.AudioFormat("s16")
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_hz)
        self._pts = 0

    def push(self, pcm: Pcm48) -> bytes:
        """Return what the samples (N,) complete."""
        if self._plain:
            return pcm.tobytes()
        frame = _frame(pcm, SOUND_RATE_HZ, self._pts)
        self._pts += len(pcm)
        return b"".join(self._write(part) for part in self._resampler.resample(frame))

    def end(self) -> bytes:
        """Return what the filter held back."""
        parts = self._resampler.resample(None) if self._pts else []
        return b"".join(self._write(part) for part in parts)

    def _write(self, frame: av.AudioFrame) -> bytes:
        if isinstance(self._codec, av.AudioCodecContext):
            return b"".join(bytes(packet) for packet in self._codec.encode(frame))
        return frame.to_ndarray().tobytes()


def _frame(pcm: Pcm48, rate_hz: int, pts: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm)[None], "s16", "mono")
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, pts, Fraction(1, rate_hz)
    return frame
