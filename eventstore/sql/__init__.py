"""The log in SQL databases.  Importing this package imports no driver; import the module you need."""
