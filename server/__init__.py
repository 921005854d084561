"""WebRTC around one engine: sessions, tracks, pacing and the HTTP door."""
