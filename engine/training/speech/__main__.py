"""`python -m engine.training.speech`."""

from engine.training.speech.train import main

main()
