"""Training of the audio-lip expert (`engine.nets.sync_expert`)."""
