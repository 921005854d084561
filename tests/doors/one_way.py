"""A WHEP player and a WHIP publisher over aiortc, as plain as the protocols are."""

from __future__ import annotations

import time
from typing import Any

import httpx
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from numpy.typing import NDArray

from client_example.headless import Viewer
from tests.doors.hearing import place_of
from tests.server.live import until

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


async def one_way_offer(*media: str, pc: RTCPeerConnection | None = None) -> str:
    """An offer of `kind direction` each, in that order."""
    own = pc or RTCPeerConnection(RTCConfiguration(iceServers=[]))
    for kind, direction in (each.split() for each in media):
        own.addTransceiver(kind, direction=direction)
    await own.setLocalDescription(await own.createOffer())
    sdp = str(own.localDescription.sdp)
    if pc is None:
        await own.close()
    return sdp


class Peer(Viewer):
    """A player of `/whep/...`, or with a microphone a publisher to `/whip`."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        super().__init__(str(http.base_url))
        self.http = http
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))  # without a data channel
        self.response = httpx.Response(0)
        self.heard: list[NDArray[Any]] = []
        self.on_sound.append(lambda frame: self.heard.append(frame.to_ndarray()[0, ::2]))

    async def open(
        self,
        path: str,
        *media: str,
        microphone: MediaStreamTrack | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Post an offer of these media; it is answered and connected when this ends."""
        self.pc.on("track", self._on_track)
        self.pc.on("connectionstatechange", self._on_state)
        if microphone is not None:
            self.pc.addTransceiver(microphone, direction="sendonly")
        sdp = await one_way_offer(*media, pc=self.pc)
        self._began = time.monotonic()
        self.response = await self.http.post(path, content=sdp, headers=SDP | (headers or {}))
        assert self.response.status_code == 201, self.response.text
        answer = RTCSessionDescription(self.response.text, "answer")
        await self.pc.setRemoteDescription(answer)
        await until(lambda: self.pc.connectionState == "connected", 10)

    @property
    def location(self) -> str:
        return str(self.response.headers["Location"])

    @property
    def sound(self) -> NDArray[Any]:
        """All that was heard, mono at 48 kHz."""
        return np.concatenate([np.zeros(0, np.int16), *self.heard])


def heard_share(said: NDArray[Any], heard: NDArray[Any]) -> float:
    """How many of the pieces of 40 ms of `said`, five a second, are somewhere in `heard`.

    Longer ones would not do: a microphone's sound is stretched a little where its packets come
    unevenly. Pieces of noise are alike to .3 by chance.
    """
    pieces = [said[at : at + 1920] for at in range(0, len(said) - 1919, 9600)]
    return float(np.mean([place_of(piece, heard)[1] > 0.7 for piece in pieces]))
