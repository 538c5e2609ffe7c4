"""Kinds of students: one file is one way to make a checkpoint smaller.

A file has `Options`, a frozen dataclass of what its table in a recipe may say; `LEARNS`, whether it changes what is
computed, and not only what words there are, which comes first; and `make(checkpoint, options, given, folder, progress)
-> record`, which writes a Hugging Face folder and says what was done. One that begins from another checkpoint has
`source(options, folder)`, which opens it; one that is held in fewer bits has `rounding(options)`, which says of a
parameter what the file will hold.
"""
