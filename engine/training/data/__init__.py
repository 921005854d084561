"""Training data: faces and clips, prepared by command."""
