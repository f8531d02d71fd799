"""In which order the chain rule is multiplied out: costs from shapes, the cheapest order, and a value that says why."""
