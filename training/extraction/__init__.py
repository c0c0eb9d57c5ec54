"""Stage 1: one module per platform, and what they share."""
