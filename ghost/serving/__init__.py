"""A merged model in the formats of other programs.

It stands beside the merge because it reads weights as the merge does.
"""
