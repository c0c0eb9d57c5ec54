"""The Telegram bot: rolling context, drafts to approve. It speaks HTTP to a Cog server or to Replicate."""
