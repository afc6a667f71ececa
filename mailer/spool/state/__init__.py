"""Small files in `state/` and `suppressed/`, through which programs share what they know."""
