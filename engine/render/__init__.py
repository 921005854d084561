"""From what a face does to the pixels of a frame."""
