"""Pictures and speech of a session over a WebSocket, for a program: a receiver without WebRTC.

`/api/sessions/{id}/media` sends binary messages, when they are due: one line of JSON, a line feed, and the data.

| line | data |
| --- | --- |
| `{"type": "picture"}` | a JPEG |
| `{"type": "said", "utterance"}` | the next speech of the utterance, at most 20 ms of PCM16 at 48 kHz |
| `{"type": "over", "utterance", "interrupted"}` | none: nothing more comes of the utterance |

Silence is not sent. Nothing is to be sent to it.
"""

from __future__ import annotations

import asyncio
import json

import av
from av.video.reformatter import VideoReformatter
from starlette.routing import BaseRoute
from starlette.websockets import WebSocket

from server.live.broadcast import VIDEO_TIME_BASE
from server.programs.pieces import Over, Piece, Pieces, Said, receiving
from server.web.http import session_of
from server.web.routes import Socket

QUALITY = 3  # of the JPEG encoder: 2 is best, 31 worst


class Jpeg:
    """Pictures as JPEG, of whatever size they are."""

    def __init__(self) -> None:
        self._codec: av.VideoCodecContext | None = None
        self._reformatter = VideoReformatter()

    def encode(self, frame: av.VideoFrame) -> bytes:
        """Return the picture as a file."""
        codec = self._codec
        if codec is None or (codec.width, codec.height) != (frame.width, frame.height):
            made = av.CodecContext.create("mjpeg", "w")
            assert isinstance(made, av.VideoCodecContext)
            codec = self._codec = made
            codec.width, codec.height, codec.pix_fmt = frame.width, frame.height, "yuvj420p"
            codec.qmin = codec.qmax = QUALITY
            codec.time_base = VIDEO_TIME_BASE
        # Other threads read the frame too: its own reformatter is not for two of them at once.
        full = self._reformatter.reformat(frame, format="yuvj420p")
        return b"".join(bytes(packet) for packet in codec.encode(full))


class Messages:
    """Pieces as messages of this door."""

    def __init__(self) -> None:
        self._jpeg = Jpeg()

    def write(self, piece: Piece) -> bytes:
        """Return a piece as a message."""
        if isinstance(piece, Said):
            return _message(piece.pcm.tobytes(), type="said", utterance=piece.utterance)
        if isinstance(piece, Over):
            over = piece.interrupted
            return _message(b"", type="over", utterance=piece.utterance, interrupted=over)
        return _message(self._jpeg.encode(piece), type="picture")


def _message(data: bytes, **line: object) -> bytes:
    return json.dumps(line).encode() + b"\n" + data


async def media(socket: WebSocket) -> None:
    """Send what leaves until the session or the socket ends."""
    with receiving(session_of(socket)) as pieces:
        await socket.accept()
        sending = asyncio.ensure_future(_send(socket, pieces))
        try:
            while (await socket.receive())["type"] != "websocket.disconnect":
                pass
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _send(socket: WebSocket, pieces: Pieces) -> None:
    messages = Messages()
    while True:
        try:
            piece = await pieces.get()
        except EOFError:
            await socket.close()
            return
        if isinstance(piece, av.VideoFrame):  # no other session waits for the encoder
            message = await asyncio.to_thread(messages.write, piece)
        else:
            message = messages.write(piece)
        await socket.send_bytes(message)


ROUTES: list[BaseRoute] = [Socket("/api/sessions/{id}/media", media, "view")]
