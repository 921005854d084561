"""Sound: files in, hops, voice activity, speech features."""
