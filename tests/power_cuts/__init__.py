"""Power cuts of real file systems: the lab, and what it judges by."""
