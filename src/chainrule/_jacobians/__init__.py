"""`Jacobian` and its kinds: entries that are stored, products alone, factors, a part of low rank."""
