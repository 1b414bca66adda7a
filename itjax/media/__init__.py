"""Pictures, videos and sound: reading them, and writing a video that survives a kill. Knows no network."""
