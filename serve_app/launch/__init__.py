"""Starting and ending everything: what `rayspond serve` does."""
