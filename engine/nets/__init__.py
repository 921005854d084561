"""The networks as torch modules, one file each. Nothing here is needed live."""
