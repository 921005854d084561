"""Public checkpoints, one file a format. Nothing here fetches; see `portraittalk models`."""

from engine.telemetry import silence

silence()  # before a module of this room imports what calls home
