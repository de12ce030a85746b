"""Many cells alike: which combinations there are, running them, and what came of it."""
