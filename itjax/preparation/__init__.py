"""Training data: a folder of videos with sound becomes the records that `itjax.records` reads (see `__main__`)."""
