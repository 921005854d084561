"""Sound as samples: formats in, one unbroken line, no session and no network."""
