"""Temporary stand-in; its owner overwrites this file."""
from typing import Any


def braille_spy(*a: Any) -> str: return ""
def html(*a: Any) -> str: return ""
def plot(*a: Any, **k: Any) -> Any: return None
