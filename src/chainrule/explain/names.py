"""Names of values: the user's own, made unique, and how they are written in mathematics."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from chainrule.explain.tree import Scope, Step, Uses

_LETTERS = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "epsilon": "ε",
    "zeta": "ζ",
    "eta": "η",
    "theta": "θ",
    "iota": "ι",
    "kappa": "κ",
    "lambda": "λ",
    "mu": "μ",
    "nu": "ν",
    "xi": "ξ",
    "pi": "π",
    "rho": "ρ",
    "sigma": "σ",
    "tau": "τ",
    "upsilon": "υ",
    "phi": "φ",
    "chi": "χ",
    "psi": "ψ",
    "omega": "ω",
    "Gamma": "Γ",
    "Delta": "Δ",
    "Theta": "Θ",
    "Lambda": "Λ",
    "Xi": "Ξ",
    "Pi": "Π",
    "Sigma": "Σ",
    "Phi": "Φ",
    "Psi": "Ψ",
    "Omega": "Ω",
}
_GREEK = _LETTERS | {"lam": "λ", "eps": "ε", "loss": "ℓ", "l": "ℓ", "ell": "ℓ"}
_LATEX = {v: f"\\{k}" for k, v in _LETTERS.items()} | {"ℓ": "\\ell"}
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_SUPERSCRIPTS = str.maketrans("0123456789()", "⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾")
_LONGEST = 40


class Name:
    """A unique name: base, index and the number of its use, written in several ways.

    Examples
    --------
    >>> str(Name("alpha_2")), Name("alpha_2").symbol, Name("alpha_2").latex
    ('alpha_2', 'α₂', '\\\\alpha_{2}')
    """

    def __init__(self, plain: str, use: int = 0) -> None:
        self.plain, self.use = plain[:_LONGEST] + ("…" if len(plain) > _LONGEST else ""), use
        found = re.fullmatch(r"(.*?[^\d_])_?(\d*)", self.plain, flags=re.DOTALL)
        base, self.index = found.groups() if found else (self.plain, "")
        self.base = _GREEK.get(base, base)

    def __str__(self) -> str:
        return f"{self.plain}({self.use})" if self.use else self.plain

    @property
    def symbol(self) -> str:
        sup = f"({self.use})".translate(_SUPERSCRIPTS) if self.use else ""
        return self.base + self.index.translate(_SUBSCRIPTS) + sup

    @property
    def latex(self) -> str:
        base = _LATEX.get(self.base) or (
            escaped(self.base) if len(self.base) == 1 else f"\\mathrm{{{escaped(self.base)}}}"
        )
        sub = f"_{{{self.index}}}" if self.index else ""
        return base + sub + (f"^{{({self.use})}}" if self.use else "")


def subscript(number: int) -> str:
    """A whole number as a subscript, for the terminal."""
    return str(number).translate(_SUBSCRIPTS)


def escaped(text: str) -> str:
    """Text for LaTeX."""
    table = {"\\": r"\backslash ", "{": r"\{", "}": r"\}", "^": r"\^{}", "~": r"\~{}"}
    return "".join(table.get(c, "\\" + c if c in "_%&#$" else c) for c in text)


class Names:
    """Hands out names, each once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.uses: dict[str, int] = dict.fromkeys(taken, 0)
        self.last: dict[str, int] = {}

    def unique(self, plain: str) -> Name:
        """The name itself, or with the number of its use where it is taken."""
        use = self.uses.get(plain, -1) + 1
        self.uses[plain] = use
        return Name(plain, use)

    def anonymous(self, letters: str = "uvztpq") -> Name:
        """A letter with a number, for what has no name in the source."""
        letter = next((c for c in letters if c not in self.uses), "u")
        while True:
            self.last[letter] = self.last.get(letter, 0) + 1
            plain = f"{letter}{self.last[letter]}"
            if plain not in self.uses:
                return self.unique(plain)


def given_name(step: Step, v: Any, uses: Uses, inside: dict[Scope, set[Any]]) -> str | None:
    """The name that the source gives to a value: that of an assignment, or of the caller's for a returned one."""
    for scope in step.scope.around():
        if scope.kind != "line":
            continue
        out = leaving(scope, uses, inside)
        own = scope.statement
        if v not in out or own is None:
            return None
        if own.targets is None:
            continue
        targets = own.targets if len(own.targets) == len(out) else [t for t in own.targets if t != "_"]
        if len(targets) == len(out):
            return targets[out.index(v)] or None
        return targets[0] if len(targets) == 1 and v == out[-1] else None
    return "y"


def leaving(scope: Scope, uses: Uses, inside: dict[Scope, list[Any]] | Any) -> list[Any]:
    """The values that are made in a scope and read outside of it, in order."""
    if scope not in inside:
        own = set(scope.steps())
        made = [v for step in scope.steps() for v in uses.results(step)]
        inside[scope] = [v for v in made if uses.read_by(v) - own]
    return inside[scope]
