"""The doors: one file for each protocol by which a client reaches a session.

A door translates; it holds no logic. Those that are served over HTTP have their `ROUTES`.
"""

from server.doors import livelink, offer, publish, sessions, speech_socket

DOORS = (livelink, offer, publish, sessions, speech_socket)
