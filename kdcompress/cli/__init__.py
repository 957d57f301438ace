"""Options -> settings -> one call -> render -> exit code. One file a command; torch is imported inside them only."""
