"""`ghost chat`: a conversation with a ghost, in the terminal or on a page of this machine's."""
