"""The Telegram bot: rolling context and drafts to approve. It calls a Cog server or Replicate over HTTP."""
