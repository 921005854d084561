"""A configuration in, a loaded engine out."""
