"""Training records of drawn people (itjax.synthetic), made without video files: `python -m itjax.preparation.drawn`."""
