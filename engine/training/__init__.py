"""Data, training and distillation by command. Nothing here is needed live."""
