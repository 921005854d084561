"""`python -m engine.training.sync`."""

import typer

from engine.training.sync.train import main

typer.run(main)
