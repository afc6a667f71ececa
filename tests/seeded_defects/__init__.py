"""Defects that are put into the product on purpose, one at a time, to see whether its tests catch them."""
