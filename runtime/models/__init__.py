"""Adapters of the model port, one file each.  Importing this package imports none of them."""
