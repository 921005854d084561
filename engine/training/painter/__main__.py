"""`python -m engine.training.painter`."""

from engine.training.painter.train.train import main

main()
