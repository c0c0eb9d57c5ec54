"""The forms in which Signal chats come: its own export, the rows of its desktop database, signal-export."""
