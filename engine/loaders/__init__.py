"""Public checkpoints, one file a format. Nothing here fetches; see `portraittalk models`."""
