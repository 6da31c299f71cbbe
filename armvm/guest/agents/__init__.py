"""Programs that armvm runs inside a guest."""
