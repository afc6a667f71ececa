"""Mechanisms without any knowledge of mail that several rooms share. Imports the standard library only."""
