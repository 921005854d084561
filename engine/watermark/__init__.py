"""An invisible mark in luma: who streamed a picture, readable after coding, scaling and a screenshot."""
