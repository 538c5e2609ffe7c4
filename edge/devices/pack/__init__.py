"""The runtime pack: Python, numpy, a tokenizer and the runtimes in one folder that needs nothing beneath it.

debian.py   packages of another architecture, without root      llama.py    llama.cpp, built across
wheels.py   Python packages for another machine                 levels.py   which instructions it may use
build.py    all of them put together, trimmed, listed
"""
