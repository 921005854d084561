"""How much of an utterance the output of a Pipecat pipeline has played, as it passes on what it played."""

from __future__ import annotations

import time

from server.extras import extra

with extra("pipecat"):
    from pipecat.frames.frames import TTSAudioRawFrame, TTSStartedFrame, TTSStoppedFrame
    from pipecat.observers.base_observer import BaseObserver, FramePushed
    from pipecat.processors.frame_processor import FrameDirection
    from pipecat.transports.base_output import BaseOutputTransport


class Played(BaseObserver):  # type: ignore[misc]
    """Counts the speech that the pipeline's output has passed on since the last `TTSStartedFrame`."""

    def __init__(self) -> None:
        super().__init__()
        self.utterances = 0  # that were played to their end
        self._counting = False  # there is an output
        self._played_s = 0.0
        self._last: tuple[float, float] = (
            0.0,
            0.0,
        )  # when a chunk had been played, and its seconds

    async def on_push_frame(self, data: FramePushed) -> None:
        """Take note of what the output passes on."""
        if not isinstance(data.source, BaseOutputTransport):
            return
        if data.direction != FrameDirection.DOWNSTREAM:
            return
        if isinstance(data.frame, TTSAudioRawFrame):
            seconds = data.frame.num_frames / data.frame.sample_rate
            self._counting = True
            self._played_s += seconds
            self._last = (time.monotonic(), seconds)
        elif isinstance(data.frame, TTSStartedFrame | TTSStoppedFrame):
            self.utterances += isinstance(data.frame, TTSStoppedFrame)
            self._played_s = 0.0

    def interrupt(self, handed_ms: float, utterances: int) -> float:
        """Begin anew; returns the ms that were played of an utterance.

        Args:
            handed_ms: of it that were handed to the output.
            utterances: that were handed on before it, whole.
        """
        before, self.utterances = self.utterances, utterances
        played_s, self._played_s = self._played_s, 0.0
        if not self._counting:
            return handed_ms
        if before < utterances:  # one before it is still being played
            return 0.0
        if played_s:  # the next chunk is being played meanwhile
            at, seconds = self._last
            played_s += min(time.monotonic() - at, seconds)
        return min(1000 * played_s, handed_ms)
