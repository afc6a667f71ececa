"""What we ask outside of mail: a URL by POST, or a program that the operator names."""
