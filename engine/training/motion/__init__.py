"""Trains the audio-to-motion VAE."""
