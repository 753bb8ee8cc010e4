r"""Reads expressions in LaTeX or as plain text: ``2\sqrt{3}``, ``3 1/2``, ``x^2-1``, ``\sin 30^\circ``, ``sqrt(2)/2``.

A recursive descent over the tokens that works values out as it goes; nothing is evaluated as a program.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from adaptive_ttc.answers.forms import functions, scalar
from adaptive_ttc.answers.forms.decimals import decimal, repeating
from adaptive_ttc.answers.forms.polynomial import TooLargeError
from adaptive_ttc.answers.forms.scalar import Scalar, of_constant, of_number, of_variable
from adaptive_ttc.answers.forms.tokens import Token, UnreadError, tokens_of

_DEEPEST = 40  # level of brackets and arguments that is read
_LONGEST = 200  # tokens that are read

_GREEK = frozenset({
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega", "ell", "hbar",
    "Gamma", "Delta", "Theta", "Lambda", "Xi", "Sigma", "Phi", "Psi", "Omega",
})  # fmt: skip
_REPEATS = ("overline", "bar", "dot", "overbar")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_DERIVATIVE = re.compile(r"\\frac ?\{ ?(?:d|\\partial)[^{}]{0,8}\}\{ ?(?:d|\\partial) ?[A-Za-z][^{}]{0,4}\}")


def read_expression(text: str, *, upper: bool = True) -> tuple[Scalar, list[Token]]:
    r"""The value of an expression at the beginning of a text, and the tokens behind it, such as those of a unit.

    ``upper``: of ``\pm`` and ``\mp`` the upper sign is meant. UnreadError: it is no expression, is too large, or has
    no value.
    """
    found = _beginning(text, upper)
    if found is None:
        raise UnreadError
    return found[0], list(found[1])


def whole(text: str, *, upper: bool = True) -> Scalar:
    """The value of a text that is an expression and nothing else. UnreadError: it is none."""
    value, rest = read_expression(text, upper=upper)
    if rest:
        raise UnreadError
    return value


@lru_cache(maxsize=1024)
def _beginning(text: str, upper: bool) -> tuple[Scalar, tuple[Token, ...]] | None:
    """:func:`read_expression`, remembered also where there is none: every kind of answer asks for the same text."""
    tokens = tokens_of(text)
    if len(tokens) > _LONGEST or _DERIVATIVE.search(text):
        return None
    parser = _Parser(tokens, upper)
    try:
        value = parser.sum()
    except (UnreadError, TooLargeError, ArithmeticError, functions.UndefinedError):
        return None
    return value, tuple(parser.tokens[parser.at :])


class _Parser:
    def __init__(self, tokens: list[Token], upper: bool) -> None:
        self.tokens = tokens
        self.at = 0
        self._upper = upper
        self._depth = 0
        self._bars = 0  # absolute values that are open

    def sum(self) -> Scalar:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise UnreadError
        total = self._signed()
        while (sign := self._sign()) is not None:
            term = self._product()
            total = scalar.plus(total, scalar.minus(term) if sign < 0 else term)
        if self._take("command", "over"):
            total = scalar.over(total, self.sum())
        elif self._take("command", "choose"):
            total = functions.binomial(total, self.sum())
        self._depth -= 1
        return total

    def _signed(self) -> Scalar:
        sign = 1
        while (one := self._sign()) is not None:
            sign *= one
        value = self._product()
        return scalar.minus(value) if sign < 0 else value

    def _sign(self) -> int | None:
        for name, sign in (("+", 1), ("-", -1)):
            if self._take("sign", name):
                return sign
        if self._take("command", "pm"):
            return 1 if self._upper else -1
        if self._take("command", "mp"):
            return -1 if self._upper else 1
        return None

    def _product(self) -> Scalar:
        value = self._factors()
        while True:
            if self._take("command", "cdot") or self._take("command", "times") or self._take("sign", "*"):
                value = scalar.times(value, self._operand())
            elif self._take("sign", "/") or self._take("command", "div"):
                value = scalar.over(value, self._operand())
            else:
                return value

    def _operand(self) -> Scalar:
        """What follows a sign of multiplication: factors, which may begin with a minus."""
        if self._take("sign", "-"):
            return scalar.minus(self._factors())
        return self._factors()

    def _factors(self) -> Scalar:
        """Factors with nothing between them, which bind closer than a slash: ``1/2x`` is 1/(2x)."""
        value = self._power()
        while self._begins_factor():
            value = scalar.times(value, self._power())
        return value

    def _begins_factor(self) -> bool:
        token = self._next
        if token is None or token.kind in ("text", "word"):
            return False
        if token.kind == "number":
            return self.tokens[self.at - 1].text in ("}", ")")
        if token.kind == "command":
            return token.text in _BASES or token.text in _GREEK or token.text in functions.FUNCTIONS
        if token.text == "|":
            return not self._bars
        return token.kind == "letter" or token.text in "([{"

    def _power(self) -> Scalar:
        value = self._base()
        while True:
            if self._take("sign", "!"):
                value = functions.factorial(value)
            elif self._is("sign", "^"):
                self.at += 1
                value = self._raised(value)
            else:
                return value

    def _raised(self, value: Scalar) -> Scalar:
        if self._is_degree():
            return scalar.times(value, of_constant("$deg"))
        exponent = self._exponent()
        if value.top == of_constant("$e").top:
            return functions.exponential(exponent)
        return scalar.power(value, exponent)

    def _is_degree(self) -> bool:
        start = self.at
        braced = self._take("sign", "{")
        if self._take("command", "circ") and (not braced or self._take("sign", "}")):
            return True
        self.at = start
        return False

    def _exponent(self) -> Scalar:
        """A group, or what may stand there without braces: a number, also of several digits, or one letter."""
        if self._take("sign", "-"):
            return scalar.minus(self._exponent())
        if self._is("sign", "{") or self._is("sign", "("):
            return self._group()
        return self._base(mixed=False)

    def _base(self, *, mixed: bool = True) -> Scalar:
        token = self._next
        if token is None:
            raise UnreadError
        if token.kind == "number":
            self.at += 1
            return self._mixed(token) if mixed else decimal(token.text)
        if token.kind == "letter":
            self.at += 1
            return self._symbol(token.text)
        if token.kind == "command":
            self.at += 1
            return self._command(token.text)
        if token.text == "|":
            return self._absolute()
        if self._take("sign", ".") and self._is("command", "overline"):
            return self._repeating("0.")
        if token.text in _CLOSING:
            return self._group()
        raise UnreadError

    def _mixed(self, token: Token) -> Scalar:
        r"""A number, and the proper fraction or digits behind it: ``3 1/2``, ``3\frac{1}{2}``, ``0.1\overline{6}``."""
        if any(self._is("command", mark) for mark in _REPEATS):
            return self._repeating(token.text)
        part = self._proper_fraction() if token.text.isdigit() else None
        return decimal(token.text) if part is None else of_number(int(token.text) + part)

    def _proper_fraction(self) -> Fraction | None:
        start = self.at
        texts = [str(token) for token in self.tokens[start : start + 7]]
        if texts[:2] == ["\\frac", "{"] and texts[3:5] == ["}", "{"] and texts[6:] == ["}"]:
            pair, length = (texts[2], texts[5]), 7
        elif len(texts) > 2 and texts[1] == "/" and self.tokens[start].spaced:
            pair, length = (texts[0], texts[2]), 3
        else:
            return None
        top, bottom = (int(part) if part.isdigit() else 0 for part in pair)
        following = self.tokens[start + length : start + length + 1]
        if not 0 < top < bottom or (following and following[0].text == "^"):
            return None
        self.at += length
        return Fraction(top, bottom)

    def _repeating(self, before: str) -> Scalar:
        """A decimal whose last digits, under a line or dots, repeat."""
        digits = ""
        while (token := self._next) is not None and token.kind == "command" and token.text in _REPEATS:
            self.at += 1
            digits += "".join(map(str, self._argument_tokens()))
        if (token := self._next) is not None and token.kind == "number":  # nothing comes after infinitely many
            raise UnreadError
        return of_number(repeating(before, digits))

    def _symbol(self, name: str) -> Scalar:
        if name == "i" and not self._is("sign", "_"):
            return of_constant("$i")
        if name == "e" and not self._is("sign", "_"):
            return of_constant("$e")
        return of_variable(name + self._index())

    def _index(self) -> str:
        r"""What makes a name of a letter: ``_1``, ``_{12}``, ``'``."""
        index = ""
        while True:
            if self._take("sign", "'"):
                index += "'"
            elif self._take("sign", "_"):
                index += "_" + "".join(map(str, self._argument_tokens()))
            else:
                return index

    def _argument_tokens(self) -> list[Token]:
        start = self.at
        if not self._take("sign", "{"):
            self.at += 1
            return self.tokens[start : self.at]
        depth = 1
        while depth:
            token = self._next
            if token is None:
                raise UnreadError
            depth += {"{": 1, "}": -1}.get(token.text, 0) if token.kind == "sign" else 0
            self.at += 1
        return self.tokens[start + 1 : self.at - 1]

    def _command(self, name: str) -> Scalar:
        if name in functions.FUNCTIONS:
            return self._function(name)
        if name in _GREEK:
            return of_variable("\\" + name + self._index())
        if name not in _BASES:
            raise UnreadError
        return _BASES[name](self)

    def _function(self, name: str) -> Scalar:
        base = exponent = None
        while self._is("sign", "_") or self._is("sign", "^"):
            token = self.tokens[self.at]
            self.at += 1
            if token.text == "_":
                base = self._argument()
            else:
                exponent = self._argument()
        argument = self._function_argument()
        inverse = exponent is not None and exponent.rational == -1
        if inverse and f"arc{name}" in functions.FUNCTIONS:
            name, exponent = f"arc{name}", None
        if base is not None:
            if name != "log":
                raise UnreadError
            value = functions.logarithm(argument, base)
        else:
            value = functions.FUNCTIONS[name](argument)
        return value if exponent is None else scalar.power(value, exponent)

    def _function_argument(self) -> Scalar:
        """A group, or factors: ``\\sin 2x``. After a group nothing more belongs to it."""
        if self._is("sign", "(") or self._is("sign", "{") or self._is("sign", "["):
            return self._group()
        if self._take("sign", "-"):
            return scalar.minus(self._function_argument())
        value = self._power()
        while self._begins_factor() and not self._begins_function():
            value = scalar.times(value, self._power())
        if self._is("sign", "/") and self.at + 1 < len(self.tokens) and self.tokens[self.at + 1].kind == "number":
            self.at += 1
            value = scalar.over(value, self._base(mixed=False))
        return value

    def _begins_function(self) -> bool:
        token = self._next
        return token is not None and token.kind == "command" and token.text in functions.FUNCTIONS

    def _group(self) -> Scalar:
        token = self.tokens[self.at]
        self.at += 1
        bars, self._bars = self._bars, 0
        value = self.sum()
        self._bars = bars
        self._expect(_CLOSING[token.text])
        return value

    def _absolute(self) -> Scalar:
        self.at += 1
        self._bars += 1
        value = self.sum()
        self._bars -= 1
        self._expect("|")
        return functions.absolute(value)

    def _argument(self) -> Scalar:
        """What a command takes: a group, one digit, one letter, or another command."""
        token = self._next
        if token is not None and token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            self.tokens = [
                *self.tokens[: self.at],
                Token("number", token.text[0]),
                Token("number", token.text[1:]),
                *self.tokens[self.at + 1 :],
            ]
        if self._is("sign", "{"):
            return self._group()
        return self._base(mixed=False)

    def fraction(self) -> Scalar:
        top = self._argument()
        return scalar.over(top, self._argument())

    def root(self) -> Scalar:
        degree = of_number(2)
        if self._take("sign", "["):
            degree = self.sum()
            self._expect("]")
        if self._is("sign", "("):
            return scalar.root(self._group(), degree)
        return scalar.root(self._argument(), degree)

    def binomial(self) -> Scalar:
        total = self._argument()
        return functions.binomial(total, self._argument())

    def between(self, closing: str, function: Callable[[Scalar], Scalar]) -> Scalar:
        value = self.sum()
        if not self._take("command", closing):
            raise UnreadError
        return function(value)

    @property
    def _next(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def _is(self, kind: str, text: str) -> bool:
        token = self._next
        return token is not None and token.kind == kind and token.text == text

    def _take(self, kind: str, text: str) -> bool:
        found = self._is(kind, text)
        self.at += found
        return found

    def _expect(self, sign: str) -> None:
        if not self._take("sign", sign):
            raise UnreadError


_BASES: dict[str, Callable[[_Parser], Scalar]] = {
    "frac": _Parser.fraction,
    "sqrt": _Parser.root,
    "binom": _Parser.binomial,
    "lfloor": lambda parser: parser.between("rfloor", functions.rounded_down),
    "lceil": lambda parser: parser.between("rceil", functions.rounded_up),
    "pi": lambda parser: of_constant("$pi"),
    "infty": lambda parser: of_constant("$oo"),
}
