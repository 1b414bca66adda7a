"""The chunk loop: schedule, guidance, denoising, colour, and the writer that keeps what was made."""
