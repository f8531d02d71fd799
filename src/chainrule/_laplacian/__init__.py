"""The trace of a Hessian: forward through blocks, or of the structured Hessian, whichever is cheaper."""
