"""WebRTC: offers, connections, tracks and what the library keeps to itself."""
