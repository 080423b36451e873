"""Faults of a single text: truncation, unbalanced LaTeX, refusals, private data.

Each function returns a short detail, or None. The rules are our reading, and narrow to avoid false alarms, since
curation may reject rows by them.
"""

import re

from qatoolkit.core.text import CJK

_OPENING, _CLOSING = "([（【「『《“", ")]）】」』》”"
_MARK = re.compile(f"[{re.escape(_OPENING + _CLOSING)}]")
_STOP = re.compile(r"[.!?](?=\s)|[。！？；;\n]")
_QUOTED = re.compile(r'(?:^|[\s(（])"(?=\w)[^"]*$')  # the last quotation mark is an opening one
_FENCED = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_BLANK = re.compile(r"(?:[(（](?:[\s~$]|\\q?quad)*)+[)）]*[\s.．$]*$")  # to fill in, closed or not
_ENDED = re.compile(r"[.!?。！？…][\"'”’)）\]]*$")
_ELLIPSIS = re.compile(rf"(?:[^\W\d_]{{2}}[ \t]?|[{CJK}])(?:\.{{3,}}|…+|。{{3,}})$")  # not that of a series: 1, 2, ...
_HANGING = re.compile(
    rf"(?:\S[,，、]|(?:^|\s)(?:the|a|an|of|and|or|but|because|than|with|which|into|from)"
    rf"|[{CJK}，、；](?:和|与|以及|或者|因为|所以|但是|如果|并且))$"
)
_WORD = re.compile(rf"([{CJK}])|[^\W{CJK}]+")

_BREAK = re.compile(r"\\\\(?:\s*\[[^\]]*\])?")  # \\[2pt] is a line break, not the start of a formula
_COMMAND = re.compile(r"\\[A-Za-z]{2,}")
_FORMULA = re.compile(r"\\[A-Za-z]{2,}|[\^_]")
_PRICE = re.compile(r"\$\s?\d[\d,.]*(?![\w\\^{])")
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{([^{}]*)\}")

_MODEL = r"an? (?:ai|artificial intelligence|(?:large )?language model)\b"
_SERVE = "answer|assist|help|provide|comply|fulfil|generate|complete|continue|discuss|engage|offer|create|write|access"
_REFUSAL = re.compile(
    r"(?:(?:i(?:'m| am) (?:very |so |really )?sorry|sorry|i apologi[sz]e|unfortunately)\b[\s,.;]*(?:but\s+)?)?"
    rf"(?:as {_MODEL}|i(?:'m| am) (?:just |only )?{_MODEL}|i must decline\b"
    rf"|i (?:can(?:not|'t| not)|am (?:unable|not able) to|won't|will not|must decline to) (?:{_SERVE})\b"
    rf"|i'm (?:unable|not able) to (?:{_SERVE})\b)"
    r"|作为(?:一[个名款])?(?:AI|人工智能|语言模型|大(?:型)?(?:语言)?模型)"
    r"|(?:(?:很|非常|十分)?(?:抱歉|对不起|遗憾)[,，。!！\s]*)?(?:但是?)?我(?:无法|不能)(?:[为帮给向][您你]|对此|就此|继续)?"
    r"(?:回答|提供|协助|帮助|满足|生成|完成|解答)",
    re.IGNORECASE,
)

_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}\b", re.ASCII)
_EXAMPLE = re.compile(r"@(?:.*\.)?(?:example\.\w+|\w+\.(?:test|invalid|example|localhost))$", re.IGNORECASE)
_DIGITS = re.compile(r"\d[\d ().-]{8,}\d")  # long enough for a phone, card or identity number
_PHONE = re.compile(
    r"(?<![\d.+\w])(?:\+\d[\d ().-]{8,17}\d|1[3-9]\d(?:\d{8}|([ -])\d{4}\1\d{4}))(?![\d%]|\.\d)", re.ASCII
)
_US_PHONE = re.compile(r"(?<![\w.+])\(\d{3}\) ?(?!555)\d{3}-\d{4}(?!\w)", re.ASCII)
_PHONE_WORD = re.compile(
    r"\b(?:phone|mobile|cell|tel|call|fax|contact|whatsapp)\b|电话|手机|微信|致电|联系|拨打|热线", re.IGNORECASE
)
_CARD = re.compile(
    r"(?<![\d.-])(?:[3-6]\d{3}([ -])\d{4}\1\d{4}\1\d{4}|3[47]\d{2}([ -])\d{6}\2\d{5}|[3-6]\d{12,18})(?![\d.-])",
    re.ASCII,
)
_CARD_WORD = re.compile(r"\b(?:card|visa|mastercard|amex)\b|银行卡|信用卡|卡号", re.IGNORECASE)
_TEST_CARDS = {"4111111111111111", "4242424242424242", "5555555555554444", "378282246310005"}  # from manuals
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_CHINESE_ID = re.compile(r"(?<![\d.])[1-9]\d{16}[\dXx](?![\w.])", re.ASCII)


def cut_off(text: str, *, sentence: bool = True) -> str | None:
    """How a text is cut off: inside a code fence, or its last sentence inside a bracket or quotation, on "..." or (from
    eight words or sixteen Chinese characters) on a comma or conjunction. With `sentence` false, as for questions and
    choices, the endings "...", comma, conjunction and open bracket to fill in are allowed."""
    text = text.rstrip()
    if "`" in text and text.count("```") % 2:
        return "a code fence is open"
    end = text[-60:]  # the rules below look at no more
    if not _ENDED.search(end):
        plain = _FENCED.sub(" ", text) if "`" in text else text
        if mark := _open_mark(plain if sentence else plain[:-60] + _BLANK.sub("", plain[-60:])):
            return f"{mark} is open at the end: {text[-30:]!r}"
    if sentence and _ELLIPSIS.search(end):
        return f"ends on an ellipsis: {text[-30:]!r}"
    if sentence and _HANGING.search(end) and _is_sentence(text[text.rfind("\n") + 1 :]):
        return f"ends amid a sentence: {text[-30:]!r}"
    return None


def _is_sentence(text: str) -> bool:
    words = _WORD.findall(text[-300:])
    return sum(1 if character else 2 for character in words) >= 16


def _open_mark(text: str) -> str | None:
    """The last bracket or quotation mark that the last sentence opens and does not close. Any closing bracket closes
    the latest open one, as in [0, 1), and ]0, 1[ opens nothing. Braces are left to `unbalanced_latex`."""
    open_marks = []
    for found in _MARK.finditer(text):
        if found[0] in _OPENING:
            open_marks.append(found)
        elif open_marks:
            open_marks.pop()
    for found in reversed(open_marks):
        mark = found[0]
        if text.count(mark) > text.count(_CLOSING[_OPENING.index(mark)]):
            return None if _STOP.search(text, found.end()) else mark
    last = text.rfind('"')
    opens = _QUOTED.search(text) and re.sub(r'(?<=\d)"', "", text).count('"') % 2
    return '"' if opens and not _STOP.search(text, last) else None


def unbalanced_latex(text: str) -> str | None:
    """LaTeX that is opened and not closed, or closed and not opened: $, braces, \\( and \\[, environments, \\left. A $
    before a number may be a price; braces count only in texts with commands."""
    if "$" not in text and "\\" not in text:
        return None
    text = _BREAK.sub(" ", _FENCED.sub(" ", text) if "`" in text else text)
    open_environments = []
    for kind, name in _ENVIRONMENT.findall(text):
        if kind == "begin":
            open_environments.append(name)
        elif not open_environments or open_environments.pop() != name:
            return f"\\end{{{name}}} without its \\begin"
    if open_environments:
        return f"\\begin{{{open_environments[-1]}}} without its \\end"
    for opening, closing in ((r"\\left(?![A-Za-z])", r"\\right(?![A-Za-z])"), (r"\\\(", r"\\\)"), (r"\\\[", r"\\\]")):
        left, right = len(re.findall(opening, text)), len(re.findall(closing, text))
        if left > right or (left < right and "left" in opening):  # "c\\)" alone is not a formula
            names = [pattern.replace("(?![A-Za-z])", "").replace("\\\\", "\\", 1) for pattern in (opening, closing)]
            return f"{left} {names[0]} and {right} {names[1]}"
    bare = re.sub(r"\\[{}$]", "", text)
    if _COMMAND.search(bare):
        depth = 0
        for brace in re.findall("[{}]", bare):
            depth += 1 if brace == "{" else -1
            if depth < 0:
                break
        if depth:
            return f"{bare.count('{')} {{ and {bare.count('}')} }}"
    signs = [one.count("$") % 2 for one in (bare, _PRICE.sub("", bare))]
    return "a $ is open" if all(signs) and _FORMULA.search(bare) else None


def refusal(answer: str) -> str | None:
    """The opening words of a refusal ("As an AI", 我无法回答). An answer that quotes such words, or says that something
    can't be determined, is not a refusal."""
    found = _REFUSAL.match(answer.lstrip().replace("’", "'"))
    return found[0] if found else None


def private_data(text: str) -> str | None:
    """Kinds of private data in a text, each with its first characters: e-mail addresses (not of example domains), phone
    numbers near a word such as "phone", bank cards (Luhn), IBANs and Chinese identity numbers (by check digits)."""
    found = [f"e-mail {m[0][:2]}…" for m in _EMAIL.finditer(text) if not _EXAMPLE.search(m[0])] if "@" in text else []
    if _DIGITS.search(text):
        found += [f"{kind} {value[:3]}…" for kind, value in _find_numbers(text)]
    return ", ".join(dict.fromkeys(found)) or None


def _find_numbers(text: str):
    from stdnum import iban, luhn
    from stdnum.cn import ric

    for m in _CHINESE_ID.finditer(text):
        if ric.is_valid(m[0].upper()):
            yield "Chinese id", m[0]
    for m in _IBAN.finditer(text):
        if iban.is_valid(m[0]):
            yield "IBAN", m[0]
    for m in _CARD.finditer(text):
        digits = re.sub(r"\D", "", m[0])
        is_card = len(digits) < len(m[0]) or _CARD_WORD.search(text)
        if is_card and len(set(digits)) > 2 and digits not in _TEST_CARDS and luhn.is_valid(digits):
            yield "card", m[0]
    yield from (("phone", m[0]) for m in _US_PHONE.finditer(text))
    if _PHONE_WORD.search(text):
        for m in _PHONE.finditer(text):
            if 10 <= len(re.sub(r"\D", "", m[0])) <= 15:
                yield "phone", m[0]
