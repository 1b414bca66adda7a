"""From what a user has (speech, pictures, videos, words) to what the networks take."""
