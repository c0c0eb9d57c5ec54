"""This side of HTTP: Cog's own server started here, the client of it and of Replicate, chats, the release."""
