"""Is a function differentiable at a point, and is its derivative what it claims?"""
