"""Training: recipes are compositions of losses, and one loop runs them all."""
