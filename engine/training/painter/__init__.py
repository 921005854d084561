"""Trains the networks of the tiny renderer."""
