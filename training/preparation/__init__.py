"""Stage 2: conversations, windows, split, JSONL."""
