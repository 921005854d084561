"""`python -m engine.training.motion`."""

from engine.training.motion.train.train import main

main()
