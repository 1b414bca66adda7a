"""The chunk loop on arrays: schedule, guidance, denoising, chunks, chunk plan, colour. Reads no files."""
