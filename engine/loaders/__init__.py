"""Public checkpoints, one module a format. Nothing downloads them; see `portraittalk models`."""

from engine.telemetry import silence

silence()  # before a module of this room imports what calls home
