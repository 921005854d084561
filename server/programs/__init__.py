"""An avatar for a program: in its own process, or of a server far away."""
