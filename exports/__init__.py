"""Turns trained modules into the ONNX files the engine runs. Uses engine, never the reverse."""
