"""The runner: claims messages, tries them at their next hops, records what happened, and moves them on."""
