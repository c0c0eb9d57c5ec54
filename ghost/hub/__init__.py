"""`ghost push` and `ghost pull`: a model to a private repo on the Hugging Face Hub and back, verified both ways.

push.py      the verb: verify, make the repo private, upload with a model card (card.md), compare, tag
pull.py      the verb: resolve the revision, download to a temporary folder, verify, rename
client.py    one connection: the account, retries, error messages
faults.py    classifies errors: retry, try later, or change something
transfer.py  which files belong to a model, whether the Hub holds the same bytes, upload and download of one file
"""
