"""Tools that come with edge: a file of functions, and beside it the manifest that offers them."""
