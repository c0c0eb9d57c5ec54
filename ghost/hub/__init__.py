"""`ghost push` and `ghost pull`: a model to a private repo on the Hugging Face Hub and back, proven whole both ways.

push.py      the verb: verify, make the repo private, upload with its card (card.md), compare, tag
pull.py      the verb: resolve, download aside, verify, rename
client.py    one connection: who is asking, what is asked again, what a person is told
faults.py    what went wrong, told apart by what can be done about it
transfer.py  which files belong to a model, whether the Hub holds the same bytes, one file up, one file down
"""
