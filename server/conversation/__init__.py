"""Realtime conversations: the avatar's own voice, a model behind it, whose turn it is."""
