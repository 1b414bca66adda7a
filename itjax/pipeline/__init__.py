"""From a request to a video: what a command line, a server or an evaluation calls."""
