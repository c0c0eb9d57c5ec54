"""What is personal in a chat, replaced before anything is written: see mask for bodies, people for names."""
