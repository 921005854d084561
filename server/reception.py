"""What a viewer says of its own reception (RTCP), added to the server's numbers."""

from __future__ import annotations

from aiortc import RTCPeerConnection, RTCRemoteInboundRtpStreamStats

from server.live.figures import Figures


class Reception:
    """The reports of one viewer; each tells its totals so far."""

    def __init__(self, pc: RTCPeerConnection, figures: Figures) -> None:
        self._pc, self._figures = pc, figures
        self._lost = 0

    async def update(self) -> None:
        """Take what was reported since."""
        reports = [
            stats
            for sender in self._pc.getSenders()
            for stats in (await sender.getStats()).values()
            if isinstance(stats, RTCRemoteInboundRtpStreamStats)
        ]
        lost = sum(max(0, report.packetsLost) for report in reports)
        self._figures.received(lost=max(0, lost - self._lost))
        self._lost = max(self._lost, lost)
