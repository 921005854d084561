"""Faces in images: reading, finding, landmarks, placement."""
