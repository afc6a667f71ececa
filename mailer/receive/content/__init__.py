"""What becomes of a message's bytes on their way in."""
