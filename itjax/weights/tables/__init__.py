"""One table of rows per network, and the names of unused tensors in its official file."""
