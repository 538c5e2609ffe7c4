"""Kinds of losses: one file is one way to say how far a student is from its teacher.

A file has `Options`, a frozen dataclass of what its table in a recipe may say beside `weight`; `WANTS`, what it
compares: "answers" or "hidden"; and `loss(teacher, student, options) -> tensor` of one value for each token.

For "answers" both sides are log-probabilities `(tokens, k + 1)`: the teacher's k likeliest tokens and all others
together. By the data-processing inequality what is measured on them is never more than the divergence of the whole
distributions. For "hidden" both are hidden states `(layers, tokens, hidden)`, those of the student next to those of
the layers that it was made from.
"""
