"""One live avatar: its line of sound, its speech, its stream at the engine, what leaves and who is told."""
