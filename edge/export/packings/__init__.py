"""Other programs' own single files, made from a packed bundle; a new file here is a new `--also`."""
