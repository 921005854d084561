"""`python -m engine.evaluation.expert`."""

import typer

from engine.evaluation.expert.train import main

typer.run(main)
