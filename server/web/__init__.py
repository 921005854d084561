"""HTTP as this server speaks it: routes that say what they are, limits of connections, bodies and hosts."""
