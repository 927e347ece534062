"""The log: streams, versions, bytes.

A general library: it does not know what a response is.  Importing it imports no driver.
"""
