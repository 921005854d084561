"""The face as numbers, live, for who draws a head of their own: Live Link Face, or OSC.

`POST /api/sessions/{id}/livelink {"kind": "livelink", "host": "127.0.0.1", "port": 11111}` sends the
52 ARKit coefficients and the turns of head and eyes by UDP whenever a picture leaves, also one that is
repeated. Only where `--publish-to` allows it: `livelink://host:11111`, `osc://host:39539`.
"""

from __future__ import annotations

import asyncio
import math
import struct
import time
import uuid
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from engine.face import arkit
from engine.offline.motion_file import eye_turns
from engine.types import F32, FaceMotion
from server.errors import ApiError
from server.live.outlet import Shown
from server.live.session import Session
from server.sending.senders import Sender
from server.targets import PORTS, Address, Targets
from server.web.http import read_json, sender_routes, sending, service_of, session_of

Coder = Callable[[FaceMotion, float], bytes]
VERSION = 6
DAY_S = 86_400


class Receiver(BaseModel):
    """POST /api/sessions/{id}/livelink."""

    kind: Literal["livelink", "osc"] = "livelink"
    host: str = Field("127.0.0.1", max_length=255, pattern=r"^[\w.:-]+$")
    port: int | None = Field(None, ge=1, le=65_535)
    subject: str = Field("portraittalk", min_length=1, max_length=60)


def live_link_values(motion: FaceMotion) -> F32:
    """The values (61,) of Live Link Face: 52 coefficients, then the turns of head and eyes in rad."""
    turns = eye_turns(motion.coefficients[None])[0]
    face = np.clip(motion.coefficients, 0, 1)
    return np.concatenate([face, motion.pose[:3], turns]).astype(np.float32)


def live_link(subject: str, fps: int) -> Coder:
    """Codes packets as the Live Link Face app sends them; a frame's number counts from midnight."""
    device, name = str(uuid.uuid4()).upper().encode(), subject.encode()
    layout = struct.Struct(f">Bi{len(device)}si{len(name)}sifiiB61f")

    def code(motion: FaceMotion, wall: float) -> bytes:
        now = time.localtime(wall)
        seconds = now.tm_hour * 3600 + now.tm_min * 60 + now.tm_sec + wall % 1
        part, frame = math.modf(seconds % DAY_S * fps)
        values = live_link_values(motion)
        head = (VERSION, len(device), device, len(name), name, int(frame), part)
        return layout.pack(*head, fps, 1, len(values), *values)

    return code


def vmc() -> Coder:
    """Codes OSC bundles of the VMC protocol; raises `ApiError` missing_extra.

    `/VMC/Ext/Blend/Val` "JawOpen" 0..1 for each coefficient, then `/VMC/Ext/Blend/Apply`; the head is
    `/VMC/Ext/Bone/Pos` "Head" with position 0 and a quaternion in Unity's axes.
    """
    try:
        from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
        from pythonosc.osc_message_builder import OscMessageBuilder
    except ImportError:
        said = "OSC needs python-osc: pip install 'portraittalk[osc]'"
        raise ApiError(501, "missing_extra", said) from None
    names = [name[0].upper() + name[1:] for name in arkit.NAMES]

    def message(address: str, *values: str | float) -> Any:
        builder = OscMessageBuilder(address)
        for value in values:
            builder.add_arg(value)
        return builder.build()

    def code(motion: FaceMotion, wall: float) -> bytes:
        bundle = OscBundleBuilder(IMMEDIATELY)
        turn = head_turn(*(float(v) for v in motion.pose[:3]))
        bundle.add_content(message("/VMC/Ext/Bone/Pos", "Head", 0.0, 0.0, 0.0, *turn))
        for name, value in zip(names, np.clip(motion.coefficients, 0, 1), strict=True):
            bundle.add_content(message("/VMC/Ext/Blend/Val", name, float(value)))
        bundle.add_content(message("/VMC/Ext/Blend/Apply"))
        return bytes(bundle.build().dgram)

    return code


def head_turn(yaw: float, pitch: float, roll: float) -> tuple[float, float, float, float]:
    """The quaternion x, y, z, w of a head in Unity's axes: y is up and the face looks along z.

    Ours are in the image: yaw to its right, pitch down, roll clockwise.
    """
    (sy, cy), (sp, cp), (sr, cr) = ((math.sin(a / 2), math.cos(a / 2)) for a in (-yaw, pitch, roll))
    return (
        cy * sp * cr + sy * cp * sr,
        sy * cp * cr - cy * sp * sr,
        cy * cp * sr - sy * sp * cr,
        cy * cp * cr + sy * sp * sr,
    )


class MotionSender(Sender):
    """Sends a datagram for every picture that leaves."""

    def __init__(self, session: Session, target: Address, code: Coder) -> None:
        super().__init__(session, "livelink", target.shown)
        self._to, self._code = (target.host, target.port), code

    async def send(self) -> None:
        """Send until the outlet is closed; that nobody listens (yet) is no error."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=self._to
        )
        try:
            while True:
                self._send(transport, await self.outlet.picture())
        except EOFError:
            return
        finally:
            transport.close()

    def _send(self, transport: asyncio.DatagramTransport, shown: Shown) -> None:
        if (motion := shown.picture.motion) is not None:
            transport.sendto(self._code(motion, shown.wall or time.time()))


async def begin(request: Request) -> Response:
    """Send the motion of a session."""
    body = await read_json(request, Receiver)
    service, session = service_of(request), session_of(request)
    host = f"[{body.host}]" if ":" in body.host else body.host
    url = f"{body.kind}://{host}:{body.port or PORTS[body.kind]}"
    target = Targets(service.settings.publish_to).address(url, "livelink", "osc")
    fps = service.worker.engine.config.stream.fps
    code = live_link(body.subject, fps) if body.kind == "livelink" else vmc()
    sender = MotionSender(session, target, code)
    service.senders.start(sender)
    return sending(sender)


ROUTES = sender_routes("livelink", begin, Receiver)
