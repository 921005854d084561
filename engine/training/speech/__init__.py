"""Trains the streaming speech encoder."""
