"""The avatar as a library: one portrait and PCM in, frames out. Knows no network."""
