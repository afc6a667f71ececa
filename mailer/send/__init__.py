"""The runner: claims messages, tries them at their next hops, records the outcomes, and moves the files."""
