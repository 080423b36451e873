"""Algebra: whether two expressions are equal, decided by sympy in a separate process.

Answers come from models and from the web, so an expression is never evaluated as code. It is split into allowed tokens
here, and a small parser in the worker builds sympy objects from them; the worker has limits on memory and CPU time.
This file is also the worker's program, so it imports nothing from the package.
"""

import atexit
import json
import math
import os
import re
import select
import subprocess
import sys
import threading
import time

SYMBOLIC_SECONDS = 2.0  # of CPU time, so that load on the machine changes no verdict
SYMBOLIC_BYTES = 1 << 30
_WALL = 10.0  # limit on wall-clock time, as a multiple of the CPU time
_START_SECONDS = 30.0
_MAX_TOKENS = 120

_FUNCTIONS = (
    "sqrt", "sinh", "cosh", "tanh", "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "arcsin",
    "arccos", "arctan", "ln", "log", "exp", "abs", "frac", "binom", "root",
)  # fmt: skip
_MATH_TOKEN = re.compile(
    r"\s*(?:(\d+(?:\.\d+)?|\.\d+)"
    r"|\\?(" + "|".join(_FUNCTIONS) + r")(?![a-z])"
    r"|((?:\\(?:vec|bar|hat|mathbb|mathcal)\s*\{\w{1,4}\}|[∠△]\s*[A-Z]{1,4}\d*|(?:[A-Z][a-z]?\d*){2,}(?![a-z])))"
    r"|((?:[A-Za-zα-ωΑ-ΩΩ∞])(?:_\{[\w+-]{1,6}\}|_\w|\d+)?'*)"
    r"|(\*\*|[-+*/^(),=!|{}_\[\]°]))"
)
_WORDS = re.compile(
    r"(?<![A-Za-z\\])(?:to|of|in|by|or|and|is|at|for|vs|not|am|pm|per|no|as|if|it|on)(?![A-Za-z])|[A-Za-z]{4,}"
)
_NO_WORDS = re.compile(
    r"\\?(?:"
    + "|".join((*_FUNCTIONS, "pi", "vec", "mathbb", "mathcal"))
    + r")(?![a-z])|_\{\w+\}|(?:[A-Z][a-z]?\d*){2,}(?![a-z])"
)
_COMBINATIONS = re.compile(  # 5C2, ^5P_2, C(5, 2), P(5, 2), C5^2 and A5^2, as `clean` writes C_5^2
    r"(?<![\w.^}])(?:(?:\{\})?[\^_])?(?P<n>\d{1,3}|\{\d{1,3}\})\s?(?P<kind>[CP])_?\s?(?P<k>\d{1,3}|\{\d{1,3}\})(?![\w.^])"
    r"|(?<![A-Za-z\d])(?P<kind2>[CP])\((?P<n2>\d{1,3}),\s*(?P<k2>\d{1,3})\)"
    r"|(?<![A-Za-z])(?P<kind3>[CPA])(?P<n3>\d{1,3})\^(?P<k3>\d(?!\d)|\{\d{1,3}\})"
)
_PLAIN = str.maketrans({"√": " sqrt ", "π": " π ", "×": "*", "·": "*", "÷": "/"})


def math_tokens(text: str, *, evident: bool = False) -> list[str] | None:
    """The tokens of an expression; None if it is not clearly mathematics: it contains a word or a token that is not
    allowed, or has neither digit nor operator (unless `evident` from elsewhere)."""
    if len(text) > 4 * _MAX_TOKENS or re.search(r"\\frac\{d\}\{d", text):
        return None
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text.translate(_PLAIN))
    text = re.sub(r"(?<=\d)[eE]([+-]?\d+)", r"*10^(\1)", text)
    text = re.sub(r"\b(sin|cos|tan|ln|log)(?=[xyzt]\b|[αθ])", r"\1 ", text)
    text = re.sub(r"\\?(?<![A-Za-z])pi(?![A-Za-z])", " π ", text)
    text = re.sub(r"\\sqrt\s*\[(\d+)\]", r" root(\1)", text)
    text = re.sub(r"(?<![A-Za-z\\])lg(?=\s*[\d(a-z])", r" \\log_{10} ", text)
    text = _count_combinations(text)
    plain = _NO_WORDS.sub("", text)
    if (
        _WORDS.search(plain)
        or re.search(r"[A-Za-z]\s+\d|(?<![A-Za-z\\])[A-Za-z]-(?=[a-z]*[aeiou])[a-z]{3}", plain)
        or not (evident or re.search(r"[\d+\-*/^=|!∞π\\√(]|\b(?:ln|log|sin|cos|tan)\s+[a-zα-ω](?![a-z])", text))
    ):
        return None
    if re.search(r"\d\s*x\s*\d|(?<!log_\d)(?<!log_)\d\s+\d", text) or re.search(r"[A-Za-z]\s+[a-z]\s+[a-z]", plain):
        return None
    tokens, position = [], 0
    while position < len(text.rstrip()) and len(tokens) <= _MAX_TOKENS:
        match = _MATH_TOKEN.match(text, position)
        if not match:
            return None
        number, name, symbol, letter, sign = match.groups()
        if sign == "|":
            opens = not tokens or tokens[-1] in ("+", "-", "*", "/", "^", "(", "=", ",", "abs", *_FUNCTIONS)
            tokens += ["abs", "("] if opens else [")"]
        else:
            mark = {"**": "^", "{": "(", "}": ")", "[": "(", "]": ")"}.get(sign, sign)
            if letter:  # x2, x_2 and x_{2} are the same name
                name = re.sub(r"^(.)_?\{?([\w+-]+)\}?", r"\1_\2", letter)
            tokens.append(number or name or (symbol and re.sub(r"\s", "", symbol)) or mark)
        position = match.end()
    letters = sum(t[0].isalpha() and t not in _FUNCTIONS for t in tokens)
    return tokens if 0 < len(tokens) <= _MAX_TOKENS and letters <= 24 else None


def _count_combinations(text: str) -> str:
    """Combinations and permutations as numbers, if all are possible; C1^2 + C2^2 are squares of constants, 6C2^2 may
    be either."""
    found = []
    for match in _COMBINATIONS.finditer(text):
        kind, n, k = (match[name] or match[f"{name}2"] or match[f"{name}3"] for name in ("kind", "n", "k"))
        found.append((match, kind, int(n.strip("{}")), int(k.strip("{}"))))
    squares = any(match["kind3"] in ("C", "P") and k == n for match, _, n, k in found)
    if squares or re.search(r"\d[CP]\d+\^", text) or any(k > n for *_, n, k in found):
        return text
    for match, kind, n, k in reversed(found):
        count = (math.comb if kind == "C" else math.perm)(n, k)
        text = f"{text[: match.start()]}({count}){text[match.end() :]}"
    return text


def has_names(tokens: list[str]) -> bool:
    """Whether a token is a run of capitals, which may be one name (a segment AB) or a product (V = IR)."""
    return any(len(t) > 1 and t[0].isupper() and t[1].isalpha() for t in tokens)


class _Worker:
    """A sympy process, killed when it exceeds its time and restarted when needed."""

    def __init__(self):
        self.process, self.owner, self.lock = None, None, threading.Lock()
        self.seconds = 0.0  # of CPU time spent on questions, without starts

    def equal(self, a: list[str], b: list[str], places: int | None = None, seconds: float = 0.0) -> bool | None:
        most = seconds or SYMBOLIC_SECONDS
        with self.lock:
            if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
                self._start()
            try:
                self.process.stdin.write(json.dumps([a, b, places, most]).encode() + b"\n")
                self.process.stdin.flush()
                verdict, took = json.loads(self._line(_WALL * most))
            except (OSError, ValueError, TimeoutError):
                self.stop()
                verdict, took = None, most
            self.seconds += took
            return verdict

    def stop(self) -> None:
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                pipe.close()
        self.process = None

    def _start(self) -> None:
        # Only what Python needs to start: API keys in the user's environment do not reach the process.
        wanted = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME", "LANG")
        env = {name: os.environ[name] for name in wanted if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-P", os.path.abspath(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
        )
        self.owner = os.getpid()
        if self._line(_START_SECONDS) != b"ready":
            self.stop()
            raise RuntimeError("the sympy worker did not start; check that `python -c 'import sympy'` works")

    def _line(self, seconds: float) -> bytes:
        deadline, received = time.monotonic() + seconds, b""
        while not received.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise TimeoutError(f"no reply from the sympy worker within {seconds} s")
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                raise OSError("the sympy worker died")
            received += chunk
        return received.strip()


WORKER = _Worker()
atexit.register(WORKER.stop)


def _build(tokens: list[str]):
    """A sympy expression from allowed tokens: sums, (implied) products, powers and calls."""
    import sympy

    inverse = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "ln": "log", "abs": "Abs"}
    constants = {"π": sympy.pi, "e": sympy.E, "i": sympy.I, "∞": sympy.oo}
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take(expected=None):
        nonlocal position
        token = peek()
        if token is None or (expected and token != expected):
            raise ValueError(f"expected {expected or 'a term'}, found {token}")
        position += 1
        return token

    def total():
        value = product()
        while peek() in ("+", "-"):
            value = value + product() if take() == "+" else value - product()
        return value

    def product():
        value = signed()
        while peek() is not None and peek() not in ("+", "-", ")", ",", "="):
            if peek() == "/":
                take()
                value = value / signed()
            else:
                if peek() == "*":
                    take()
                value = value * signed()
        return value

    def signed():
        if peek() in ("+", "-"):
            return signed() if take() == "+" else -signed()
        value = atom()
        while peek() in ("!", "°"):
            value = sympy.factorial(value) if take() == "!" else value * sympy.pi / 180
        if peek() == "^":
            take()
            return value ** signed()  # right-associative; the exponent may have a sign
        return value

    def group():
        take("(")
        value = total()
        take(")")
        return value

    def argument():  # sin 2x, but sin x cos x is a product
        if peek() == "(":
            return group()
        value = signed()
        while peek() is not None and peek()[0].isalpha() and peek() not in _FUNCTIONS:
            value = value * signed()
        return value

    def atom():
        if peek() == "(":
            return group()
        token = take()
        if token == "frac":
            return group() / group()
        if token == "binom":
            return sympy.binomial(group(), group())
        if token == "root":
            degree = group()
            value = group()
            odd = degree.is_Integer and degree % 2 == 1 and value.is_number and value.is_negative
            return -((-value) ** (1 / degree)) if odd else value ** (1 / degree)
        if token == "sqrt":
            return sympy.sqrt(atom())
        if token == "log" and peek() == "_":
            take()
            base = atom()
            return sympy.log(argument(), base)
        if token in _FUNCTIONS:
            function = getattr(sympy, inverse.get(token, token))
            if peek() == "^":  # sin^2(x)
                take()
                power = -atom() if peek() == "-" and take() else atom()
                value = argument()
                return getattr(sympy, "a" + token)(value) if power == -1 else function(value) ** power
            return function(argument())
        if token in constants:
            return constants[token]
        if token[0].isdigit() or token[0] == ".":
            return sympy.Rational(token)
        if token[0].isalpha() or token[0] in "\\∠△":
            return sympy.Symbol(token)
        raise ValueError(f"unexpected {token!r}")

    value = total()
    if peek() == "=":  # an equation: bring everything to one side
        take()
        value = value - total()
    if peek() is not None:
        raise ValueError(f"unexpected {peek()!r}")
    return value


def _equivalent(a, b, places: int | None, equations: bool = False) -> bool | None:
    """Whether expressions are equal (equations: up to a constant factor; with `places`: after rounding to that many
    decimals); None if undecided.

    Evaluating at random numbers refutes quickly and sympy confirms; if it can't, agreement at all points is enough."""
    import random

    import sympy

    if equations and not (a.free_symbols or b.free_symbols):
        return None  # 2 + 3 = 5 and 1 + 4 = 5
    if equations:  # F = ma and a = F/m
        a, b = (sympy.fraction(sympy.together(side))[0] for side in (a, b))
    if equations and a.free_symbols == b.free_symbols:
        point = {s: sympy.Rational(i, 7) for i, s in enumerate(sorted(a.free_symbols, key=str), 11)}
        factor = (a / b).subs(point)
        b = b * factor if factor.is_finite and factor != 0 else b
    if {a, b} <= {sympy.oo, -sympy.oo}:
        return a == b
    difference, agreed = a - b, 0
    if difference.is_Rational:
        return bool(difference == 0 or (places is not None and abs(difference) <= _half_unit(places)))
    if places is not None and not difference.free_symbols:
        return bool(abs(sympy.N(difference, 30)) <= _half_unit(places))
    symbols, numbers, differs_if_complex = sorted(a.free_symbols | b.free_symbols, key=str), random.Random(0), False
    for i in range(8 if symbols else 1):
        sign = -1 if i % 2 else 1
        point = {s: sign * sympy.Rational(numbers.randint(101, 999), 313) for s in symbols}
        x, y = (sympy.N(side.subs(point), 30) for side in (a, b))
        if not (x.is_number and y.is_number and x.is_finite and y.is_finite):
            continue
        # The difference itself, to 150 digits: 2^100 + 1 is not 2^100 - 1, and 1e-34 is not zero.
        distance = abs(sympy.N(difference.subs(point), 20, maxn=150))
        if not distance.is_number or distance > sympy.Float("1e-60") * max(abs(x), abs(y), sympy.Float("1e-60")):
            if sign > 0 or (x.is_real and y.is_real):
                return False
            differs_if_complex = True  # log(x^2) and 2 log(x) agree where both are real
        else:
            agreed += 1
    if differs_if_complex:
        return None
    return True if sympy.simplify(difference) == 0 or agreed >= (4 if symbols else 1) else None


def _may_share_solutions(a, b) -> bool:
    """Whether two equations may have the same solutions though they differ: 2^x = 8 and x = 3, E = mv^2/2 and
    v = sqrt(2E/m)."""
    import sympy

    a, b = (sympy.fraction(sympy.together(side))[0] for side in (a, b))
    symbols, polynomials = a.free_symbols | b.free_symbols, [side.is_polynomial() for side in (a, b)]
    degrees = [sympy.degree(side, *symbols) for side in (a, b)] if len(symbols) == 1 and all(polynomials) else [1]
    return len(set(polynomials)) == 2 or len(set(degrees)) == 2 or (len(symbols) == 1 and not any(polynomials))


def _half_unit(places: int):
    """Half a unit in the last decimal place."""
    import sympy

    return sympy.Rational(1, 2) * sympy.Integer(10) ** -places


def _serve() -> None:
    """The worker: reads JSON lines with two token lists, writes a verdict and the seconds it took. A question that
    exceeds its CPU time ends the process."""
    import contextlib
    import resource
    import signal

    for limit, most in ((resource.RLIMIT_AS, SYMBOLIC_BYTES), (resource.RLIMIT_FSIZE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS has no RLIMIT_AS, only the time limit applies
            resource.setrlimit(limit, (most, most))
    _equivalent(_build(["x", "+", "x"]), _build(["2", "x"]), None)  # imports and caches before the first question

    print("ready", flush=True)
    for line in sys.stdin:
        a, b, places, most = json.loads(line)
        started = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, most)  # SIGPROF ends the process, even outside Python code
        try:
            equations = ("=" in a) + ("=" in b)
            verdict = _equivalent(_build(a), _build(b), places, equations == 2)
            verdict = None if verdict and equations == 1 else verdict  # x - 1 = 0, and x - 1
            if verdict is False and equations == 2 and _may_share_solutions(_build(a), _build(b)):
                verdict = None
        except Exception:
            verdict = None
        signal.setitimer(signal.ITIMER_PROF, 0)
        found = None if verdict is None else bool(verdict)
        print(json.dumps([found, time.process_time() - started]), flush=True)


if __name__ == "__main__":
    _serve()
