"""Blocks of rows: broadcast-ELLPACK entries, what moves and applies them."""
