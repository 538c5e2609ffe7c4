"""Models that see: their checkpoint in two parts, what each format makes of the vision part, and its rules.

    split.py    a checkpoint's text part, as a checkpoint of its own; which tensors are vision
    rule.py     how a picture becomes pixels and tokens: `Bundle.image`, from the source's processor
    tower.py    the vision part as torch runs it: pixels in, features out
    join.py     text part and vision part as one artifact, one account of all tensors

What a format does with the vision part stands in `edge/export/vision/formats/`, a file for each.
"""
