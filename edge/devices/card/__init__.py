"""A bundle into an image of a card, before anybody has started a board from it. Needs neither root nor mounting.

partitions.py   which part of the image is the root file system      ext4.py   files in it, by e2fsprogs
image.py        all of it put together
"""
