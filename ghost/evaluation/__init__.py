"""Does it sound like the person? Held-out figures, each beside the person's own variation and the base model."""
