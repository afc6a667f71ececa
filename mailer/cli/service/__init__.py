"""Long-running programs and what surrounds them: the service manager, signals, child processes, the loop."""
