"""Files out: videos, frame folders, motion."""
