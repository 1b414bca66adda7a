"""The networks, as pure functions of (parameters, arrays): no files, no guidance, no chunks."""
