"""Characters of Unicode that stand for mathematics, as LaTeX; it knows nothing of answers."""

from __future__ import annotations

import re
import unicodedata

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ"
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙᵢ"
_PLAIN = "0123456789+-()ni"
_TO_PLAIN = str.maketrans(_SUPERSCRIPTS + _SUBSCRIPTS, _PLAIN * 2)

_FRACTION = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")
_SUPER = re.compile(f"[{_SUPERSCRIPTS}]+")
_SUB = re.compile(f"[{_SUBSCRIPTS}]+")
_ROOT = re.compile("([√∛∜])\\s?(?:\\(([^()]*)\\)|([0-9]+(?:\\.[0-9]+)?|[A-Za-zπ])|(?=\\{)|)")
_INDEX = {"√": "", "∛": "[3]", "∜": "[4]"}
_OVERLINED = re.compile("((?:[0-9]\u0305)+)")
_DOTTED = re.compile("([0-9])\u0307")

# fmt: off
_GREEK = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "omicron", "pi", "rho", "varsigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
)
_SIGNS = {
    **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u2014\ufe63\uff0d", "-"),
    "×": r"\times ", "✕": r"\times ", "⨯": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ",
    "•": r"\cdot ", "∗": "*", "⁄": "/", "∕": "/", "±": r"\pm ", "∓": r"\mp ", "∞": r"\infty ", "°": r"^\circ ",
    "º": r"^\circ ", "˚": r"^\circ ",
    **dict.fromkeys("≤≦⩽", r"\le "), **dict.fromkeys("≥≧⩾", r"\ge "),
    "≠": r"\ne ", "≈": r"\approx ", "∈": r"\in ", "∉": r"\notin ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ",
    "⌀": r"\emptyset ", "∖": r"\setminus ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}",
    "ℕ": r"\mathbb{N}", "ℂ": r"\mathbb{C}", "⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ", "〉": r"\rangle ",
    "′": "'", "″": "''", "∶": ":", "…": r"\ldots ", "⋯": r"\ldots ", "∣": "|", "ϵ": r"\epsilon ", "ϕ": r"\phi ",
    "ϑ": r"\theta ", "ℯ": "e", "ⅈ": "i", "∠": r"\angle ", "∆": r"\Delta ", "Γ": r"\Gamma ", "Δ": r"\Delta ",
    "Θ": r"\Theta ", "Λ": r"\Lambda ", "Π": r"\Pi ", "Σ": r"\Sigma ", "Φ": r"\Phi ", "Ψ": r"\Psi ", "Ω": r"\Omega ",
    "Ø": r"\emptyset ", "≡": r"\equiv ", "＄": r"\$", "％": r"\%", "‘": "'", "’": "'", "“": '"', "”": '"',
    "、": ",", "，": ",", "；": ";", "：": ":", "。": ".",
    **{chr(0x3B1 + place): rf"\{name} " for place, name in enumerate(_GREEK)},
}
# fmt: on
_SIGN = re.compile("[" + re.escape("".join(_SIGNS)) + "]")


def to_latex(text: str) -> str:
    """With LaTeX in place of fractions, powers, roots, Greek letters, signs and spaces of Unicode.

    ``3½`` becomes ``3\\frac{1}{2}``, ``x²`` ``x^{2}``, ``∛5`` ``\\sqrt[3]{5}``. Other characters stay.
    """
    text = _OVERLINED.sub(lambda match: "\\overline{" + match[1].replace("\u0305", "") + "}", text)
    text = _DOTTED.sub(r"\\dot{\1}", text)
    text = _FRACTION.sub(_fraction, text)
    text = _ROOT.sub(_root, text)
    text = _SIGN.sub(lambda match: _SIGNS[match[0]], text)
    text = _SUPER.sub(lambda match: "^{" + match[0].translate(_TO_PLAIN) + "}", text)
    return _SUB.sub(lambda match: "_{" + match[0].translate(_TO_PLAIN) + "}", text)


def _fraction(match: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", match[0]).partition("\u2044")
    return f"\\frac{{{top}}}{{{bottom}}}" if bottom else match[0]


def _root(match: re.Match[str]) -> str:
    inner = next((part for part in match.groups()[1:] if part is not None), None)
    return f"\\sqrt{_INDEX[match[1]]}" + ("" if inner is None else f"{{{inner}}}")
