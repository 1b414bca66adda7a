"""From a request to a video: the entry point for command lines, servers and evaluations."""
