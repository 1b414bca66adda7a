"""For each network one table of rows, and the names of what its official file holds besides."""
