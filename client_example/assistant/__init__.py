"""A small complete assistant: it hears the visitor of the page, thinks, and answers through the portrait."""
