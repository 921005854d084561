"""Metrics and evaluation sets. Needs torch; nothing here is used live."""
