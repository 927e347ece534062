"""What a project is: who may ask for what, and how much."""
