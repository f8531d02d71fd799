"""Linear algebra by structure: a method of elimination for each kind of pattern, and what is built on it."""
