"""Faces in pictures: reading, finding, landmarks, placement."""
