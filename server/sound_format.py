"""The sound that doors take: PCM16 or G.711, at any usual rate, cut anyhow, to 48 kHz."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
import numpy as np

from engine.errors import AvatarError
from server.intake import SOUND_RATE_HZ, Pcm48

Encoding = Literal["pcm16", "ulaw", "alaw"]
RATES_HZ = (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
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
        if self.rate_hz not in RATES_HZ:
            known = ", ".join(map(str, RATES_HZ))
            raise SpeechRefused("bad_format", f"{self.rate_hz} Hz is not taken; {known} are")


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
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm)[None], "s16", "mono")
        frame.sample_rate, frame.pts = self._rate, self._pts
        frame.time_base = Fraction(1, self._rate)
        self._pts += len(pcm)
        parts = [part.to_ndarray()[0] for part in self._resampler.resample(frame)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)
