"""Training of a small VAE on drawn faces: `python -m itjax.training.vae`."""
