"""Next hops of the runner, mail for them, and what becomes of it."""
