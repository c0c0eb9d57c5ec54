"""`ghost push` and `ghost pull`: a model to a private repo on the Hugging Face Hub and back, proven whole both ways.

push.py      the verb: verify, make the repo private, upload, compare, tag
pull.py      the verb: resolve, download aside, verify, rename
client.py    one connection: who is asking, what is asked again, what a person is told
faults.py    what went wrong, told apart by what can be done about it
manifest.py  which files belong to a model, and whether the Hub holds the same bytes
transfer.py  one file up, one file down
card.py      the model card, from card.md
"""
