"""Texts that ship with edge: for calibration, for judging, and questions with known answers.

The prompts were written for this project; the answers were sampled from SmolLM2-135M-Instruct
(Apache-2.0) by `make.py`, and the list of words is counted by `words.py` from what it writes when it is asked nothing.
All of it is under the project's licence.
"""
