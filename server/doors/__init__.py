"""The doors: one file for each protocol by which a client reaches a session.

A door translates; it holds no logic. Those that are served over HTTP have their `ROUTES`.
"""

from server.doors import offer, publish, sessions, speech_socket

DOORS = (offer, publish, sessions, speech_socket)
