"""What a Slack export holds beside its rows: people, conversations, and the spelling of its texts."""
