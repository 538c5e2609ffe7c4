"""How tools are run: one file per way, and the file's name is the key of a manifest.

A way has `read(value, where) -> spec` (raises `InputError`), `describe(spec, arguments) -> str` (what would happen,
exactly) and `run(tool, arguments, place) -> Ran`.
"""
