"""From media to what the networks take: text, speech features, persons."""
