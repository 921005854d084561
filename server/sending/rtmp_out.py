"""A process that carries FLV from its standard input to an RTMP server.

PyAV connects and writes to the network without giving other threads their turn: in the server's own
process one slow RTMP server would stop every session. The first line is the address, which is kept
from the list of processes because it may hold a key.
"""

from __future__ import annotations

import io
import sys

import av

LIVE = {"probesize": "65536", "analyzeduration": "500000"}  # that much is waited for at the begin


def carry(url: str, source: io.FileIO) -> None:
    """Copy every packet of the FLV file `source` to `url` until it ends."""
    options = {"flush_packets": "1", "flvflags": "no_duration_filesize"}
    with (
        av.open(source, "r", format="flv", options=LIVE) as incoming,
        av.open(url, "w", format="flv", options=options) as outgoing,
    ):
        streams = {s.index: outgoing.add_stream_from_template(s) for s in incoming.streams}
        for packet in incoming.demux():
            if packet.dts is not None:  # the last one of each stream is empty
                packet.stream = streams[packet.stream.index]
                outgoing.mux(packet)


def main() -> int:
    """Carry; an error is one line without the address."""
    with io.FileIO(0) as file:
        url = bytearray()
        while (byte := file.read(1)) not in (b"", b"\n"):
            url += byte
        try:
            carry(url.decode(), file)
        except av.FFmpegError as error:
            sys.stderr.write(f"{error.strerror}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
