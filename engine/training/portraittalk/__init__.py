"""Trains and distils the full-size system, stage by stage."""
