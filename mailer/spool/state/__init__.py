"""Small files in `state/` and `suppressed/`: what programs leave for one another."""
