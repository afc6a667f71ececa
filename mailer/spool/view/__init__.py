"""Reading messages without owning them: listings, `show`, `why`, and what keeps mail waiting."""
