"""Stage 2: speakers, conversations, windows, split, JSONL."""
