"""The commands of `rayspond`, one small module each."""
