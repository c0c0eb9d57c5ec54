"""Stage 5: the Cog build context. Imports nothing from outside this folder."""
