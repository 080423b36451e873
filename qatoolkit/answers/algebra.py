"""Algebra: whether two expressions are equal, decided by sympy in a separate process.

Answers come from models and from the web, so an expression is never evaluated as code: it is cut into allowed tokens
here and built into sympy objects by a small parser in the worker, which has a memory limit and is killed when it
exceeds its time. This file is also the worker's program, so it imports nothing from the package.
"""

import atexit
import json
import os
import re
import select
import subprocess
import sys
import threading
import time

SYMBOLIC_SECONDS = 2.0
SYMBOLIC_BYTES = 1 << 30
_START_SECONDS = 30.0
_MAX_TOKENS = 120

_FUNCTIONS = (
    "sqrt", "sinh", "cosh", "tanh", "sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "arcsin",
    "arccos", "arctan", "ln", "log", "exp", "abs",
)  # fmt: skip
_GREEK = ("alpha", "beta", "gamma", "delta", "theta", "lambda", "mu", "rho", "sigma", "phi", "omega")
_MATH_TOKEN = re.compile(
    r"\s*(?:(\d+(?:\.\d+)?|\.\d+)|("
    + "|".join((*_FUNCTIONS, "pi", *_GREEK))
    + r")(?![A-Za-z])|([A-Za-z])(?:_\{?(\w{1,3})\}?)?"
    r"|(\*\*|[-+*/^(),=]))"
)
_LATEX = (
    (re.compile("√"), " sqrt "),
    (re.compile("π"), " pi "),
    (re.compile("[×·]"), "*"),
    (re.compile("÷"), "/"),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\\(?=(?:" + "|".join((*_FUNCTIONS, "pi", *_GREEK)) + r")(?![A-Za-z]))"), " "),
)


def math_tokens(text: str) -> list[str] | None:
    """The tokens of an expression, or None if it has any that are not allowed."""
    if len(text) > 4 * _MAX_TOKENS:
        return None
    text = re.sub(r"\\sqrt\s*\[(\d+)\]\s*\{", r"root(\1,{", text)  # closed by the parser's `root`
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    for _ in range(8):  # innermost first, at most eight levels
        text = re.sub(r"root\((\d+),\{([^{}]*)\}", r"((\2)^(1/(\1)))", text)
        text, n = re.subn(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", text)
        text, m = re.subn(r"(\^|sqrt\s*)\{([^{}]*)\}", r"\1(\2)", text)
        if not n + m:
            break
    tokens, position = [], 0
    while position < len(text.rstrip()) and len(tokens) <= _MAX_TOKENS:
        match = _MATH_TOKEN.match(text, position)
        if not match:
            return None
        number, name, letter, index, sign = match.groups()
        tokens.append(
            number or name or (letter + (f"_{index}" if index else "") if letter else "^" if sign == "**" else sign)
        )
        position = match.end()
    letters = sum(len(t) == 1 and t.isalpha() for t in tokens)
    wordy = re.search(r"[A-Za-z]{4,}", re.sub("|".join((*_FUNCTIONS, *_GREEK)), "", text))
    return tokens if 0 < len(tokens) <= _MAX_TOKENS and letters <= 12 and not wordy else None


class _Worker:
    """One running sympy process, killed when it exceeds its time and restarted when needed."""

    def __init__(self):
        self.process, self.owner, self.lock = None, None, threading.Lock()

    def equal(self, a: list[str], b: list[str], places: int | None = None) -> bool | None:
        with self.lock:
            if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
                self._start()
            try:
                self.process.stdin.write(json.dumps([a, b, places]).encode() + b"\n")
                self.process.stdin.flush()
                return json.loads(self._line(SYMBOLIC_SECONDS))
            except (OSError, ValueError, TimeoutError):
                self.stop()
                return None

    def stop(self) -> None:
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                pipe.close()
        self.process = None

    def _start(self) -> None:
        # Only what Python needs to start: no API key of the user's environment reaches the process.
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
        if peek() == "^":
            take()
            return value ** signed()  # right-associative; the exponent may have a sign
        return value

    def atom():
        token = take()
        if token == "(":
            value = total()
            take(")")
            return value
        if token in _FUNCTIONS:
            function = getattr(sympy, inverse.get(token, token))
            if peek() == "^":  # sin^2(x)
                take()
                power = atom()
                return function(atom()) ** power
            return function(atom())
        if token == "pi":
            return sympy.pi
        if token[0].isdigit() or token[0] == ".":
            return sympy.Rational(token)
        if token[0].isalpha():
            return sympy.E if token == "e" else sympy.I if token == "i" else sympy.Symbol(token)
        raise ValueError(f"unexpected {token!r}")

    value = total()
    if peek() == "=":  # an equation: all on one side
        take()
        value = value - total()
    if peek() is not None:
        raise ValueError(f"unexpected {peek()!r}")
    return value


def _equivalent(a, b, places: int | None, equations: bool = False) -> bool | None:
    """Whether expressions are equal (equations: up to a constant factor; with `places`: after rounding to as many
    decimals); None if undecided.

    Numbers put in for the symbols refute fast and sympy confirms; if it can't, agreement at all numbers is enough."""
    import random

    import sympy

    if equations and a.free_symbols == b.free_symbols:
        point = {s: sympy.Rational(i, 7) for i, s in enumerate(sorted(a.free_symbols, key=str), 11)}
        factor = (a / b).subs(point)
        b = b * factor if factor.is_finite and factor.is_rational and factor != 0 else b
    difference, agreed = a - b, 0
    if difference == 0:
        return True
    if places is not None and not difference.free_symbols:
        return bool(abs(sympy.N(difference, 30)) <= sympy.Rational(1, 2) * sympy.Integer(10) ** -places)
    symbols, numbers = sorted(a.free_symbols | b.free_symbols, key=str), random.Random(0)
    for _ in range(6 if symbols else 1):
        point = {s: sympy.Rational(numbers.randint(101, 999), 313) for s in symbols}
        x, y = (sympy.N(side.subs(point), 30) for side in (a, b))
        if not (x.is_number and y.is_number and x.is_finite and y.is_finite):
            continue
        if abs(x - y) > sympy.Float("1e-20") * max(abs(x), abs(y), sympy.Float("1e-40")):  # 1e-34 is no zero
            return False
        agreed += 1
    return True if sympy.simplify(difference) == 0 or agreed >= (4 if symbols else 1) else None


def _serve() -> None:
    """The worker: one JSON line of two token lists in, one JSON verdict out."""
    import contextlib
    import resource

    for limit, most in ((resource.RLIMIT_AS, SYMBOLIC_BYTES), (resource.RLIMIT_FSIZE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS has no RLIMIT_AS, only the time limit applies
            resource.setrlimit(limit, (most, most))
    import sympy  # noqa: F401  (its import is the slow part: do it before the first question)

    print("ready", flush=True)
    for line in sys.stdin:
        try:
            a, b, places = json.loads(line)
            equations = "=" in a and "=" in b
            verdict = _equivalent(_build(a), _build(b), places, equations)
        except Exception:
            verdict = None
        print(json.dumps(None if verdict is None else bool(verdict)), flush=True)


if __name__ == "__main__":
    _serve()
