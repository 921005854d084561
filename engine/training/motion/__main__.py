"""`python -m engine.training.motion`."""

from engine.training.motion.train import main

main()
