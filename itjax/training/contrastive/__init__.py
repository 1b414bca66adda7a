"""Contrastive training of small picture and text encoders on drawn faces: `python -m itjax.training.contrastive`."""
