"""Serve a merged model, chat with it, release it, and export it to other programs' formats."""
