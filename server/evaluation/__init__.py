"""Videos as a viewer receives them, and the command `portraittalk evaluate`."""
