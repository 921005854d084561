"""`python -m engine.training.face`."""

from engine.training.face.train.train import main

main()
