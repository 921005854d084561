"""From speech features to the motion of a face: 52 coefficients, head pose, expression."""
