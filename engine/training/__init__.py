"""Data, training and distillation by command. Nothing here is needed live."""

from engine.telemetry import silence

silence()  # before a module of this room imports what calls home
