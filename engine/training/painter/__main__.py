"""`python -m engine.training.painter`."""

from engine.training.painter.train import main

main()
