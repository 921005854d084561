"""Metrics and evaluation sets. Needs torch; nothing here is used live."""

from engine.telemetry import silence

silence()  # before a module of this room imports what calls home
