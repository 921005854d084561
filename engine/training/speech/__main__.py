"""`python -m engine.training.speech`."""

from engine.training.speech.train.train import main

main()
