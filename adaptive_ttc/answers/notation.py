r"""One way to write an answer: characters, LaTeX commands, mark-up, spaces and thousands separators.

What is done here changes how an answer is written and never what it says; it knows nothing of values.
"""

from __future__ import annotations

import re
import unicodedata

from adaptive_ttc.answers import characters

_EMPTY_DELIMITER = re.compile(r"\\(?:left|right) ?\.")
_COMMAND = re.compile(r"\\(?:[A-Za-z]+|.)")
_SHORT_FRACTION = re.compile(r"\\frac ?([0-9]) ?([0-9])(?![0-9])")
_SHORT_ROOT = re.compile(r"\\sqrt ?([0-9])(?![0-9])")
# Not the space of "2, 100", without which it would be a number.
_LOOSE_SPACE = re.compile(r"(?!(?<=[0-9],) +[0-9]{3}(?![0-9]))(?:(?<![A-Za-z0-9]) +| +(?![A-Za-z0-9]))")
_TRAILING = re.compile(r"(?:(?<![.\\])\.|(?<!\\)[,;\\])+$")

# fmt: off
_LAYOUT = (
    r"\;", r"\:", r"\>", r"\(", r"\)", r"\[", r"\]", r"\quad", r"\qquad",
    r"\left", r"\right", r"\middle", r"\big", r"\Big", r"\bigg", r"\Bigg", r"\bigl", r"\bigr", r"\Bigl", r"\Bigr",
    r"\displaystyle", r"\textstyle", r"\scriptstyle", r"\limits", r"\nolimits", r"\large", r"\Large", r"\small",
    r"\bf", r"\bfseries", r"\rm", r"\it", r"\em", r"\boldmath", r"\centering", r"\enspace", r"\thinspace",
    r"\strut", r"\mathstrut", r"\hfill", r"\hfil", r"\nonumber", r"\notag", r"\allowbreak",
)
_STYLES = (
    r"\mathbf", r"\mathit", r"\mathsf", r"\mathtt", r"\mathnormal", r"\boldsymbol", r"\bm", r"\pmb",
    r"\underline", r"\uline", r"\emph", r"\boxed", r"\fbox", r"\ensuremath",
)
# fmt: on
_COMMANDS = {
    "\\ ": " ",
    r"\,": "\u2009",
    r"\!": "\u200a",
    **dict.fromkeys(_LAYOUT, " "),
    **dict.fromkeys((r"\dfrac", r"\tfrac", r"\cfrac"), r"\frac"),
    **dict.fromkeys((r"\dbinom", r"\tbinom"), r"\binom"),
    **dict.fromkeys(
        (r"\mbox", r"\textbf", r"\textrm", r"\textit", r"\textnormal", r"\textsf", r"\texttt", r"\textup", r"\textsc"),
        r"\text",
    ),
    r"\leq": r"\le",
    r"\leqslant": r"\le",
    r"\geq": r"\ge",
    r"\geqslant": r"\ge",
    r"\neq": r"\ne",
    r"\lt": "<",
    r"\gt": ">",
    r"\lbrace": r"\{",
    r"\rbrace": r"\}",
    r"\lbrack": "[",
    r"\rbrack": "]",
    r"\lvert": "|",
    r"\rvert": "|",
    r"\vert": "|",
    r"\varnothing": r"\emptyset",
    r"\infin": r"\infty",
    r"\degree": r"^\circ",
    r"\deg": r"^\circ",
    r"\colon": ":",
    r"\lor": r"\text{ or }",
    r"\vee": r"\text{ or }",
    r"\land": r"\text{ and }",
    r"\wedge": r"\text{ and }",
    r"\dots": r"\ldots",
    r"\cdots": r"\ldots",
    r"\dotsc": r"\ldots",
    r"\ast": "*",
    r"\star": "*",
    r"\smallsetminus": r"\setminus",
    r"\backslash": r"\setminus",
    r"\reals": r"\mathbb{R}",
    **{rf"\{letter}": rf"\mathbb{{{letter}}}" for letter in "RQZNC"},
    r"\O": r"\emptyset",
    r"\imath": "i",
    r"\jmath": "j",
    r"\textdollar": r"\$",
    r"\pounds": "\u00a3",
    r"\euro": "\u20ac",
    r"\EUR": "\u20ac",
    r"\percent": r"\%",
}

_STYLE = re.compile(r"\\(?:" + "|".join(name[1:] for name in _STYLES) + r")(?![A-Za-z]) ?")
_ROMAN = re.compile(r"\\mathrm ?(?=\{ *(?:[A-Za-z]{2}|[A-Zabcf-hj-z] *\}|[A-Za-z] ?/ ?[A-Za-z]))")  # not of e, i, d
_BLACKBOARD = re.compile(r"\\mathbb ?(?=[A-Z])([A-Z])")
_COLOUR = re.compile(
    r"\\(?:(?:text)?color(?:box)?|fcolorbox ?\{[^{}]{0,40}\})(?![A-Za-z]) ?(?:\[[^\]{}]{0,20}\])?\{[^{}]{0,40}\}"
    r"|\\bbox ?\[[^\]{}]{0,40}\]"
)
_BLANKS = re.compile(r"\\(?:[hv]space|[hv]?phantom|tag|label)\*? ?\{[^{}]{0,40}\}")
_UNIT_VECTOR = re.compile(r"\\hat ?(?:\{([ijk])\}|\{\{([ijk])\}\}|([ijk])(?![A-Za-z]))")
_COUNTRY = re.compile(r"(?<![A-Za-z])US ?(?=\\\$)")
_PROGRAM_POWER = re.compile(r"(?<=[\w)}\]])\*\*(?=[\w({-])")
_HTML = re.compile(r"</?(?:b|i|u|strong|em|mark|span|p|code)>")
_MARKS = re.compile(r"^(\*\*|__|`|\*)(?=\S)(.*?\S)\1$")
_PERCENT = re.compile(r"(?<!\\)%")
_ORDINAL = re.compile(
    r"(?<=[0-9])\^?\{? ?\\text ?\{ ?(?:st|nd|rd|th) ?\} ?\}?|(?<=[0-9])\^\{ ?(?:st|nd|rd|th) ?\}"
    r"|(?:(?<=1)st|(?<=2)nd|(?<=3)rd|(?<=[0-9])th)(?![A-Za-z])"
)
_TEXT_OF_SIGNS = re.compile(r"\\text ?\{((?:[^A-Za-z{}\\$]|\\[$%])*)\}")
_ANNOUNCED = re.compile(r"(?i)^\\text ?\{ ?(?:the )?(?:final )?answer(?: is)? ?:? ?\} ?:?(?=.)")
_ANNOUNCED_PLAINLY = re.compile(r"(?i)^(?:the )?(?:final )?answer ?(?:(?:is ?)?: ?|is )(?=.)")
_TIMES = re.compile(r"(?<=[0-9]) ?[xX] ?(?=10(?:\^|\*\*))")
_ROOT_OF = re.compile(r"\\root ?\{?([0-9a-z])\}? ?\\of(?![A-Za-z])")
_WHOLE_TEXT = re.compile(r"\\text ?\{ *([^{}]*?) *\}")
_MATHS_IN_TEXT = re.compile(r"\\text ?\{ *\$([^{}$]*)\$ *\}")
_WRAPPED = re.compile(r"(?<![\w}\]^_\\])\{([0-9.]+)\}(?![_^{])")
_LONE_DOLLAR = re.compile(r"(?<![\\$0-9])\$ ?(?=[0-9.])")

_TEX_THOUSANDS = re.compile("(?<=[0-9])(?:,[\u2009\u200a]|\\{,\\}\u200a?) ?(?=[0-9]{3}(?![0-9]))")
_THIN_THOUSANDS = re.compile("(?<![0-9.,\u2009])[1-9][0-9]{0,2}(?:\u2009[0-9]{3})+(?![0-9\u2009])")
_SPACED_THOUSANDS = re.compile(r"(?<![\w.,})\]] )(?<![\w.,])[1-9][0-9]{0,2}(?: [0-9]{3})+(?![\w/]| ?[0-9\\])")
_COMMA_THOUSANDS = re.compile(r"(?<![\w.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]|,[0-9])")
_OPENING, _CLOSING = re.compile(r"\\\{|\\langle|[(\[]"), re.compile(r"\\\}|\\rangle|[)\]]")


def one_pass(text: str) -> str:
    """A text without the outermost layer of mark-up, with commands in their commonest spelling and fewer spaces.

    Applied until nothing changes any more it gives the canonical text of an answer.
    """
    text = text if text.isascii() else _in_ascii(text)
    text = _PERCENT.sub(r"\\%", text.replace("~", " "))
    text = _EMPTY_DELIMITER.sub(" ", text)
    text = _COMMAND.sub(_command, text)
    text = _LONE_DOLLAR.sub(r"\\$", text) if text.count("$") - text.count(r"\$") == 1 else text
    text = _COUNTRY.sub("", text)
    text = _MATHS_IN_TEXT.sub(r"\1", text)
    text = re.sub(r"(?<!\\)\$", " ", text)
    text = _without_marks(text)
    text = text if text.startswith("**") else _PROGRAM_POWER.sub("^", text)
    text = _TIMES.sub(r"\\times ", _ROOT_OF.sub(r"\\sqrt[\1]", text))
    text = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text)
    text = _SHORT_ROOT.sub(r"\\sqrt{\1}", text)
    text = _thousands(text)
    text = _LOOSE_SPACE.sub("", " ".join(text.replace("\u200a", "").replace("\u2009", " ").split()))
    return _TRAILING.sub("", text)


def _command(match: re.Match[str]) -> str:
    if match[0][1] in "-0123456789":  # a backslash that was the blank of "\\ 3"
        return " " + match[0][1]
    return _COMMANDS.get(match[0], match[0])


def _in_ascii(text: str) -> str:
    """With commands in place of the characters that mean the same, and Latin digits and letters of full width."""
    text = characters.to_latex(text)
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def _without_marks(text: str) -> str:
    r"""Without bold print, colours and lines below, and without ``\text`` around what has no letters."""
    text = text.strip()
    while match := _MARKS.match(text):
        text = match[2]
    text = _HTML.sub("", _COLOUR.sub("", text))
    text = _STYLE.sub("", _BLANKS.sub(" ", text))
    text = _UNIT_VECTOR.sub(r"{\1\2\3}", text)
    text = _BLACKBOARD.sub(r"\\mathbb{\1}", text)
    text = _ROMAN.sub(r"\\text", text)
    text = re.sub(r"\\mathrm(?![A-Za-z]) ?", "", text)
    text = _ANNOUNCED_PLAINLY.sub("", _ANNOUNCED.sub("", text))
    text = _ORDINAL.sub(r"\\text{th}", text)
    text = _TEXT_OF_SIGNS.sub(r"\1", text)
    if match := _WHOLE_TEXT.fullmatch(text):
        text = f"\\text{{{match[1]}}}" if match[1] else ""
    text = _WRAPPED.sub(r"\1", text)
    return _without_braces(text) if text.startswith("{") and text.endswith("}") else text


def _without_braces(text: str) -> str:
    """Without the pairs of braces that are around all of a text."""
    closed_at: dict[int, int] = {}
    opened: list[int] = []
    for match in re.finditer(r"\\.|[{}]", text):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            closed_at[opened.pop()] = match.start()
    layers = 0
    while closed_at.get(layers) == len(text) - 1 - layers:
        layers += 1
    return text[layers : len(text) - layers]


def _thousands(text: str) -> str:
    """With numbers in place of groups of three digits, but where the groups are entries of a list.

    ``1,234,567`` is a number and ``2, 100, 300`` a list; of ``1,000, 2,000`` both entries are thousands. Within
    brackets commas part entries, unless some have a space behind, or digits begin with 0: ``(1,234)`` is a point.
    """
    if not re.search(r"[0-9](?:[, \u2009\u200a]|\{,)", text):
        return text
    text = _TEX_THOUSANDS.sub("", text)
    text = _THIN_THOUSANDS.sub(_joined, text)
    text = _SPACED_THOUSANDS.sub(_joined, text)
    within = _OPENING.search(text) and _CLOSING.search(text) and not re.search(r"[0-9], [0-9]", text)
    return _COMMA_THOUSANDS.sub(lambda match: _joined(match) if not within or ",0" in match[0] else match[0], text)


def _joined(match: re.Match[str]) -> str:
    return re.sub(r"[^0-9]", "", match[0])
