r"""Words, and letters of a multiple choice: ``\text{Yes}``, ``no solution``, ``(B)``, ``B) 17``."""

from __future__ import annotations

import re

from adaptive_ttc.answers.forms.form import Form, Reader, Reading
from adaptive_ttc.answers.forms.scalar import of_constant, of_variable
from adaptive_ttc.answers.forms.tokens import is_word

_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_SAID = re.compile(r"[\w '\u2019\"`.,;:!?()/&%$#\u00c0-\u024f-]+")
_SENTENCE = re.compile(r"[A-Za-z '\u2019\"`.,;:!?\u00c0-\u024f]+(?:-[A-Za-z]{2,}[A-Za-z ,.]*)*")
_PUNCTUATION = re.compile(r"[^\w]+|_")
_ARTICLE = re.compile(r"(?:the|an?) (?=\w{2})")
_NAMED = re.compile(r"(?i:choice|option|answer)(?: ?: ?| |(?=\())\(?([A-J])\)?\.?")
_LETTER = re.compile(r"\\text ?\{ ?\(?([A-Z])[).]? ?\}|\(([A-Z])\)|([A-Z])[).]?|\(\\text ?\{ ?([A-Z]) ?\}\)")
_LABELS = (
    re.compile(r"\\text ?\{ ?\(?(?P<letter>[A-J]) ?[).:] ?\} ?(?P<rest>.+)"),
    re.compile(r"\\text ?\{ ?\(?(?P<letter>[A-J]) ?[).:] ?(?P<rest>[^{}]+)\}"),
    re.compile(r"\((?P<letter>[A-J])\) ?(?P<rest>(?!(?:\\text ?\{ ?)?(?:and|or)(?![a-z]))[^(\[+*/^=_,;:' -].*)"),
    re.compile(r"(?P<letter>[A-J]): ?(?P<rest>[-0-9$\\].*)"),
    re.compile(r"(?P<letter>[A-J])\) ?(?P<rest>.+)"),
    re.compile(r"(?P<letter>[A-J])\. ?(?P<rest>.+)"),
)


def choice(text: str, read: Reader) -> Reading | None:
    """A capital letter in brackets or alone."""
    match = _LETTER.fullmatch(text)
    return None if match is None else Reading(_chosen(match[match.lastindex or 0]))


def labelled(text: str, read: Reader) -> Reading | None:
    """A choice by its letter and what it says; it may stand for either alone."""
    for pattern in _LABELS:
        match = pattern.fullmatch(text)
        if match is None:
            continue
        said = read(match["rest"])
        content = Form("text", tag=match["rest"]) if said is None else said.form
        also = () if said is None else said.also
        return Reading(Form("labelled", (content,), match["letter"]), (_chosen(match["letter"]), content, *also))
    return None


def sentence(text: str, read: Reader) -> Reading | None:
    """Words with nothing but blanks and punctuation between them."""
    plain = _TEXT.sub(r" \1 ", text)
    if not _SENTENCE.fullmatch(plain) or not any(map(is_word, re.findall("[A-Za-z]+", plain))):
        return None
    return words(text, read)


def words(text: str, read: Reader) -> Reading | None:
    """A text of words, whose case, blanks and punctuation do not count; one small letter alone is a variable."""
    plain = " ".join(_TEXT.sub(r" \1 ", text).split())
    if not _SAID.fullmatch(plain):
        return None
    if match := _NAMED.fullmatch(plain):
        return Reading(_chosen(match[1]))
    runs = re.findall(r"[A-Za-z]+", plain)
    if not (plain != text and runs) and not any(map(is_word, runs)) and plain.isascii():
        return None
    if len(plain.strip("().")) == 1:
        letter = plain.strip("().")
        return Reading(_chosen(letter) if letter.isupper() else of_variable(letter))
    told = " ".join(_PUNCTUATION.sub(" ", plain.replace("'", "").replace("\u2019", "")).casefold().split())
    if told in ("infinity", "positive infinity"):
        return Reading(of_constant("$oo"))
    return Reading(Form("words", tag=_ARTICLE.sub("", told, count=1) if _ARTICLE.match(told) else told))


def _chosen(letter: str) -> Form:
    return Form("choice", tag=letter)
