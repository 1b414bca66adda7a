"""Where arrays live on many devices, and how they get there."""
