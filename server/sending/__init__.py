"""A session sent elsewhere: files, RTMP and SRT, what they are muxed into."""
