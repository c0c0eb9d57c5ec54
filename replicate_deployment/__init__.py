"""The Cog build context. Nothing here imports from outside this folder."""
