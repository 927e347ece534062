"""What a conversation is: items that responses and clients add to, one response at a time."""
