"""Functions that equations define, and their derivatives by the implicit function theorem."""
