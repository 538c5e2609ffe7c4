"""The data that `smollm2-act` learned from: tools, what people say to them, and the calls that follow.

`tools/*.txt` holds real tools with their phrases; `tools/unseen.txt` those that training never sees.
`catalogue` reads them, `values` fills their parameters, `disguise` renames them, `invent` makes new
ones up, `requests` turns a few tools into a manifest with requests and answers.
All of it was written for this project and is under its licence.
"""
