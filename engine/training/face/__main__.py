"""`python -m engine.training.face`."""

from engine.training.face.train import app

app()
