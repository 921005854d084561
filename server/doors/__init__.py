"""The doors: one file for each protocol by which a client reaches a session.

A door translates; it holds no logic. Those that are served over HTTP have their `ROUTES`.
"""

from server.doors import (
    livelink,
    media_socket,
    offer,
    portraits,
    publish,
    realtime,
    sessions,
    smallwebrtc,
    speech_socket,
    twilio,
    whep,
    whip,
)

DOORS = (
    portraits,
    offer,
    sessions,
    speech_socket,
    media_socket,
    smallwebrtc,
    realtime,
    twilio,
    whep,
    whip,
    publish,
    livelink,
)
