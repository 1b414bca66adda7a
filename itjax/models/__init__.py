"""The networks as pure functions of (parameters, arrays). No file I/O, guidance or chunking here."""
