"""The invented person of the demo: chats, exports and the starter base, all made by seeded code."""
