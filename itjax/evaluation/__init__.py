"""How well a generated video does what it should, in numbers."""
