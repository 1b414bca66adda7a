"""The chunk loop on arrays: schedule, guidance, denoising, chunks and their plan, colour. Knows no files but noise."""
