"""Trains the face detector and the landmark network."""
