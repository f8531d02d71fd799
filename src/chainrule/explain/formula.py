"""Formulas that are written three ways at once: as text, in LaTeX and in MathML."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from chainrule.explain.names import Name, escaped

_SMALL = dict(zip("aehijklmnoprstuvx", "ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", strict=True)) | dict(
    zip("0123456789βγρφχ", "₀₁₂₃₄₅₆₇₈₉ᵦᵧᵨᵩᵪ", strict=True)
)
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def xml(text: str) -> str:
    """Text for MathML and SVG; characters that XML does not have are left out."""
    return escape(_UNSEEN.sub("", text), quote=True)


@dataclass(frozen=True)
class Formula:
    """One formula in three notations; `transposed` is that of its transpose where that is written otherwise."""

    text: str
    latex: str
    mathml: str
    flipped: Formula | None = None
    symmetric: bool = False
    compound: bool = False

    def __add__(self, other: Formula) -> Formula:
        return Formula(self.text + other.text, f"{self.latex} {other.latex}", self.mathml + other.mathml)

    @property
    def T(self) -> Formula:
        """The formula of the transpose."""
        if self.symmetric:
            return self
        if self.flipped is not None:
            return self.flipped
        inner = bracketed(self) if self.compound else self
        latex = f"{inner.latex}^{{\\top}}" if "^" not in inner.latex else f"\\left({inner.latex}\\right)^{{\\top}}"
        mathml = f"<msup><mrow>{inner.mathml}</mrow><mo>⊤</mo></msup>"
        return Formula(f"{inner.text}ᵀ", latex, mathml, flipped=self)

    def as_factor(self) -> Formula:
        return bracketed(self) if self.compound else self

    def to_dict(self) -> dict[str, str]:
        return {"text": self.text, "latex": self.latex, "mathml": f"<math>{self.mathml}</math>"}


@functools.lru_cache(maxsize=4096)
def named(name: Name) -> Formula:
    base = f"<mi>{xml(name.base)}</mi>"
    found = f"<msub>{base}<mn>{xml(name.index)}</mn></msub>" if name.index else base
    if name.use:
        found = f"<msup>{found}<mrow><mo>(</mo><mn>{name.use}</mn><mo>)</mo></mrow></msup>"
    return Formula(name.symbol, name.latex, found)


def operator(text: str, latex: str | None = None) -> Formula:
    return Formula(text, text if latex is None else latex, f"<mo>{xml(text)}</mo>")


def word(text: str) -> Formula:
    return Formula(text, f"\\mathrm{{{escaped(text)}}}", f"<mi mathvariant='normal'>{xml(text)}</mi>")


def digits(value: int | float | str) -> Formula:
    return Formula(str(value), str(value), f"<mn>{xml(str(value))}</mn>")


def bracketed(inner: Formula) -> Formula:
    return Formula(
        f"({inner.text})", f"\\left({inner.latex}\\right)", f"<mrow><mo>(</mo>{inner.mathml}<mo>)</mo></mrow>",
        flipped=None, symmetric=False,
    )  # fmt: skip


def prime(inner: Formula) -> Formula:
    return Formula(f"{inner.text}′", f"{inner.latex}'", f"<msup>{inner.mathml}<mo>′</mo></msup>")


def diag(inner: Formula) -> Formula:
    mathml = f"<mi>Diag</mi><mo>⁡</mo><mrow><mo>(</mo>{inner.mathml}<mo>)</mo></mrow>"
    return Formula(f"Diag({inner.text})", f"\\operatorname{{Diag}}({inner.latex})", mathml, symmetric=True)


def row(vector: Formula) -> Formula:
    """A vector's transpose: the Jacobian of a dot product."""
    return Formula(f"{vector.text}ᵀ", f"{vector.latex}^{{\\top}}", f"<msup>{vector.mathml}<mo>⊤</mo></msup>", vector)


def fraction(above: Formula, below: Formula) -> Formula:
    mathml = f"<mfrac><mrow><mo>∂</mo>{above.mathml}</mrow><mrow><mo>∂</mo>{below.mathml}</mrow></mfrac>"
    latex = f"\\frac{{\\partial {above.latex}}}{{\\partial {below.latex}}}"
    return Formula(f"∂{above.text}/∂{below.text}", latex, mathml, compound=True)


def indexed(name: Formula, index: str) -> Formula:
    if not index:
        return name
    small = "".join(_SMALL.get(c, "") for c in index)
    text = name.text + (small if len(small) == len(index) else f"[{index}]")
    kind = "mn" if index.isdigit() else "mi"
    return Formula(text, f"{{{name.latex}}}_{{{index}}}", f"<msub>{name.mathml}<{kind}>{xml(index)}</{kind}></msub>")


def gradient(of: Formula, by: Formula) -> Formula:
    small = "".join(_SMALL.get(c, "") for c in by.text)
    text = f"∇{small}{of.text}" if len(small) == len(by.text) else f"∇_{{{by.text}}} {of.text}"
    return Formula(text, f"\\nabla_{{{by.latex}}} {of.latex}", f"<msub><mo>∇</mo>{by.mathml}</msub>{of.mathml}")


def joined(parts: Sequence[Formula], text: str, latex: str | None = None, mathml: str | None = None) -> Formula:
    """Formulas with something between them."""
    return Formula(
        text.join(p.text for p in parts),
        (text if latex is None else latex).join(p.latex for p in parts),
        (f"<mo>{xml(text)}</mo>" if mathml is None else mathml).join(p.mathml for p in parts),
        compound=len(parts) > 1,
    )


def product(factors: Sequence[Formula]) -> Formula:
    if len(factors) == 1:
        return factors[0]
    return joined([f.as_factor() for f in factors], " ", "\\,", "<mspace width='0.12em'/>")


def total(terms: Sequence[Formula]) -> Formula:
    return joined(terms, " + ", " + ", "<mo>+</mo>")


def summed(letters: Sequence[tuple[str, int]], term: Formula) -> Formula:
    """Σ over indices, each up to its size."""
    if not letters:
        return term
    names = ",".join(letter for letter, _ in letters)
    small = "".join(_SMALL.get(letter, letter) for letter, _ in letters)
    below = f"<mrow><mi>{names}</mi></mrow>"
    latex = f"\\sum_{{{names}}} {term.latex}"
    mathml = f"<munder><mo>∑</mo>{below}</munder>{term.mathml}"
    if len(letters) == 1:
        letter, size = letters[0]
        latex = f"\\sum_{{{letter}=1}}^{{{size}}} {term.latex}"
        start = f"<mrow><mi>{letter}</mi><mo>=</mo><mn>1</mn></mrow>"
        mathml = f"<munderover><mo>∑</mo>{start}<mn>{size}</mn></munderover>{term.mathml}"
    return Formula(f"Σ{small} {term.text}", latex, mathml, compound=True)
