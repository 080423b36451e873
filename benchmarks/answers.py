"""Correctness and speed of `same_answer` against Math-Verify and exact match, on rewritten real answers.

    python benchmarks/answers.py [--quick] [--data FOLDER] [--pairs FILE]

Every answer of the question sets in `--data` (or QATOOLKIT_REAL_DATA, see tests; null without them) is rewritten by
rules, once into the same answer (units, separators, fractions, percent, scientific notation, LaTeX, Chinese numerals,
text around it) and once into a different answer (number, sign, unit, order, another choice of the question, the answer
of another question), which is then also written in one of the ways of the first kind. Counted: equal answers judged
different, different answers judged the same, and undecided pairs. `--pairs` is a JSONL file of a, b, right (null: can't
be told). Math-Verify gets both texts bare, as from lm-eval's tasks; exact match ignores case and punctuation, as
lm-eval's does. Peers get a sample of the pairs, since Math-Verify takes tens of milliseconds per pair. Then lists of
eight and hostile expressions are timed. The last line is one JSON object.
"""

import argparse
import collections
import json
import logging
import os
import random
import re
import string
import time
from fractions import Fraction
from pathlib import Path

UNITS = [  # symbol, English, Chinese, another one
    ("km", "kilometers", "千米", "m"), ("cm", "centimeters", "厘米", "mm"), ("kg", "kilograms", "千克", "g"), ("m/s", "meters per second", "米每秒", "km/h"),
    ("cm^2", "square centimeters", "平方厘米", "m^2"), ("m^3", "cubic meters", "立方米", "cm^3"), ("h", "hours", "小时", "min"), ("$", "dollars", "美元", "cents"),
    ("mL", "milliliters", "毫升", "L"), ("J", "joules", "焦耳", "kJ"), ("kPa", "kilopascals", "千帕", "Pa"), ("g/cm^3", "grams per cubic centimeter", "克每立方厘米", "kg/m^3"),
    ("°C", "degrees Celsius", "摄氏度", "°F"), ("V", "volts", "伏", "mV"), ("N", "newtons", "牛顿", "kN"), ("people", "people", "人", "houses"),
]  # fmt: skip
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def to_chinese(n: int) -> str:
    """The Chinese numerals of an integer below 10^8."""
    if n >= 10_000:
        high, low = divmod(n, 10_000)
        return to_chinese(high) + "万" + (("零" if low < 1000 else "") + to_chinese(low) if low else "")
    text, zero = "", False
    for power, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, n = divmod(n, power)
        if digit:
            text += ("零" if zero and text else "") + "零一二三四五六七八九"[digit] + unit
        zero = not digit
    return text or "零"


def as_unit(text, rng):
    symbol, english, chinese, _ = rng.choice(UNITS)
    if not NUMBER.fullmatch(text):
        return None
    forms = [
        f"{text} {english}",
        f"{text}{chinese}",
        f"${text}" if symbol == "$" and text[0] != "-" else f"{text} {symbol}",
    ]
    forms.append(rf"{text}\ \mathrm{{{symbol}}}" if re.fullmatch("[A-Za-z]+", symbol) else forms[0])
    one, two = rng.sample(forms, 2)
    return one, rng.choice((two, text))


def as_separated(text, rng):
    if not re.fullmatch(r"-?\d{4,12}", text):
        return None
    return text, rng.choice(
        [f"{int(text):,}", f"{int(text):,}".replace(",", " "), f"{int(text):,}".replace(",", "{,}"), f"{int(text):,}.0"]
    )


def as_fraction(text, rng):
    if found := re.fullmatch(r"(-?)(\d+)/(\d+)", text):
        sign, top, bottom = found.groups()
        return text, rng.choice(
            [rf"{sign}\frac{{{top}}}{{{bottom}}}", rf"${sign}\dfrac{{{top}}}{{{bottom}}}$", f"{sign}{top} / {bottom}"]
        )
    if re.fullmatch(r"-?\d+\.\d{1,4}", text):
        value = Fraction(text)
        return text, rng.choice(
            [f"{value}", rf"{'-' * (value < 0)}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"]
        )
    return None


def as_percent(text, rng):
    number = text.rstrip("%")
    if not NUMBER.fullmatch(number):
        return None
    return f"{number}%", rng.choice([rf"{number}\%", f"{number} percent", rf"${number}\%$", f"{number} %"])


def as_scientific(text, rng):
    if not NUMBER.fullmatch(text) or len(text) > 14 or float(text) == 0:
        return None
    digits, _, power = f"{float(text):.12e}".partition("e")
    digits, power = digits.rstrip("0").rstrip("."), int(power)
    return text, rng.choice(
        [f"{digits}e{power}", f"{digits} × 10^{power}", rf"${digits} \times 10^{{{power}}}$", f"{digits}*10^{power}"]
    )


def as_latex(text, rng):
    if "$" in text or "\\" in text:
        bare = re.sub(r"\\[dt]frac", r"\\frac", text)
        return text, rng.choice(
            [
                bare,
                text.replace("\\frac", "\\dfrac"),
                re.sub(r"(?<!\\)\((?!\))", r"\\left(", text).replace(")", "\\right)")
                if "(" in text and "\\(" not in text
                else bare,
            ]
        )
    if len(text) > 60 or re.search("[%#&_$]", text):
        return None
    return text, rng.choice(
        [f"$ {text} $" if NUMBER.fullmatch(text) else rf"\text{{{text}}}", rf"\boxed{{{text}}}", rf"\mathrm{{{text}}}"]
    )


def as_chinese(text, rng):
    if not re.fullmatch(r"-?\d{1,8}(?:\.\d{1,3})?", text):
        return None
    whole, _, part = text.lstrip("-").partition(".")
    chinese = (
        ("负" if text[0] == "-" else "")
        + to_chinese(int(whole))
        + ("点" + "".join("零一二三四五六七八九"[int(d)] for d in part) if part else "")
    )
    return text, chinese


def with_text(text, rng):
    if len(text) > 200:
        return None
    forms = [
        f"The answer is {text}.",
        f"Answer: {text}",
        f"The final answer is: {text}",
        f"答案是{text}。",
        f"Therefore, the answer is {text}",
        f" {text} ",
        f"{text}.",
        f"**{text}**",
    ]
    if NUMBER.fullmatch(text):
        forms += [f"约{text}", f"about {text}", f"{text} in total", f"x = {text}"]
    return text, rng.choice(forms)


SAME = {"units": as_unit, "separators": as_separated, "fractions": as_fraction, "percent": as_percent, "scientific": as_scientific, "latex": as_latex, "chinese": as_chinese, "text": with_text}  # fmt: skip


def change_number(row, rng):
    numbers = list(re.finditer(r"(?<![\d.])\d+(?:\.\d+)?", row["answer"]))
    if not numbers or len(row["answer"]) > 200:
        return None
    found = rng.choice(numbers)
    digits = found[0]
    place = rng.randrange(len(digits))
    if digits[place] == ".":
        return None
    changed = digits[:place] + str((int(digits[place]) + rng.randint(1, 9)) % 10) + digits[place + 1 :]
    changed = rng.choice([changed, digits + "0" if "." not in digits else digits.replace(".", "", 1)])
    if Fraction(changed) == Fraction(digits) or changed[0] == "0":
        return None
    return row["answer"], row["answer"][: found.start()] + changed + row["answer"][found.end() :]


def change_sign(row, rng):
    text = row["answer"]
    if NUMBER.fullmatch(text) and float(text):
        return text, text[1:] if text[0] == "-" else f"-{text}"
    plus = (
        [m.start() for m in re.finditer(r"(?<=[\w)}\s])[+-](?=[\s\d\w\\(])", text)]
        if re.fullmatch(r"\$?[\w\s+\-*/^\\{}().=]{3,60}\$?", text)
        else []
    )
    return (
        (text, text[: plus[0]] + {"+": "-", "-": "+"}[text[plus[0]]] + text[plus[0] + 1 :])
        if "\\" in text and plus
        else None
    )


def change_unit(row, rng):
    if not NUMBER.fullmatch(row["answer"]) or not float(row["answer"]):
        return None
    symbol, english, chinese, other = rng.choice(UNITS)
    if symbol == "$":
        symbol = "dollars"
    return f"{row['answer']}{rng.choice([' ' + symbol, ' ' + english, chinese])}", f"{row['answer']} {other}"


def change_order(row, rng):
    text = row["answer"].strip("$")
    if found := re.fullmatch(r"([^\s,/:]{1,20})(\s*(?:[/:,、]|\bto\b|\s-\s)\s*)([^\s,/:]{1,20})", text):
        one, joiner, two = found.groups()
        if one != two and "=" not in text and joiner.strip() not in ("、",) and "(" not in text and "\\" not in text:
            return text, two + joiner + one
    if NUMBER.fullmatch(text):
        other = str(int(float(text)) + rng.randint(1, 30))
        form = rng.choice(["{} to {}", "({}, {})", "{}:{}", "{}/{}", "{} of {}", "[{}, {})", "{} in {}", "{} by {}"])
        one, two = form.format(text, other), form.format(other, text)
        return None if "-" in text or not float(text) else (one, two)
    return None


def other_choice(row, rng):
    others = [c for c in row["choices"] if c != row["answer"]] if row["choices"] is not None else []
    return (row["answer"], rng.choice(others)) if others and row["answer_index"] == row["answer_index"] else None


def other_answer(row, rng):
    other = rng.choice(row["pool"])
    numbers = [[float(n) for n in re.findall(r"\d+(?:\.\d+)?", text)] for text in (row["answer"], other)]
    same = numbers[0] == numbers[1] != [] or exact(other) == exact(row["answer"])
    return None if same else (row["answer"], other)


OTHER = {"number": change_number, "sign": change_sign, "unit": change_unit, "order": change_order, "choice": other_choice, "answer": other_answer}  # fmt: skip


def make_pairs(rows: list[dict], seed: int) -> list[tuple[str, str, str, bool]]:
    """(kind, a, b, right): for every row one pair of equal and one of different answers, of a random kind that
    applies."""
    rng, pairs = random.Random(seed), []
    for row in rows:
        for rules, right in ((SAME, True), (OTHER, False)):
            names = list(rules)
            rng.shuffle(names)
            for name in names:
                made = rules[name](row["answer"] if right else row, rng)
                if made and made[0].strip() and made[1].strip():
                    one, two = made
                    if not right and rng.random() < 0.5:
                        again = rng.choice([as_latex, with_text, as_scientific, as_chinese])(two, rng)
                        two = again[1] if again else two
                    pairs.append((name, one, two, right))
                    break
    return pairs


def exact(text: str) -> str:
    """Normalise as lm-eval's exact_match does with ignore_case and ignore_punctuation."""
    return " ".join(text.casefold().translate(str.maketrans("", "", string.punctuation)).split())


def rates(pairs, judge) -> dict:
    """Shares of pairs by error, in all and by kind, and pairs per second; `wrong` has the wrongly judged pairs."""
    counts, wrong, started = collections.Counter(), [], time.perf_counter()
    by_kind = collections.defaultdict(collections.Counter)
    for kind, a, b, right in pairs:
        found = judge(a, b)
        name = (
            "undecided"
            if found is None
            else "right"
            if found == right
            else "wrong_same"
            if found
            else "wrong_different"
        )
        if name == "wrong_same" or name == "wrong_different":
            wrong.append((name, kind, a, b))
        counts[right, name] += 1
        by_kind[f"{kind} ({'same' if right else 'other'})"][name] += 1
    seconds = time.perf_counter() - started
    same, other = (sum(n for (r, _), n in counts.items() if r is right) or 1 for right in (True, False))
    return {
        "wrong_different": counts[True, "wrong_different"] / same,
        "undecided_same": counts[True, "undecided"] / same,
        "wrong_same": counts[False, "wrong_same"] / other,
        "undecided_other": counts[False, "undecided"] / other,
        "pairs": len(pairs),
        "pairs_a_second": round(len(pairs) / seconds),
        "by_kind": {kind: dict(found) for kind, found in sorted(by_kind.items())},
        "wrong": wrong,
    }


def peers() -> dict:
    """Judges by name, with Math-Verify if it is installed."""
    found = {"exact_match": lambda a, b: exact(a) == exact(b)}
    try:
        from math_verify import parse, verify
    except ImportError:
        print("math-verify is not installed: pip install math-verify[antlr4_13_2]")
        return found
    logging.disable(logging.CRITICAL)
    return found | {
        "math_verify": lambda a, b: verify(parse(b, parsing_timeout=3), parse(a, parsing_timeout=3), timeout_seconds=3)
    }


def hostile() -> list[str]:
    """Sixty expressions that hang or fill memory if evaluated, expanded or matched carelessly."""
    depth = [50, 400, 5_000]
    shapes = [lambda n: "(" * n + "1" + ")" * n, lambda n: "\\frac{1}{" * n + "x" + "}" * n, lambda n: "\\sqrt{" * n + "2" + "}" * n, lambda n: "-" * n + "1", lambda n: "x^" * n + "x", lambda n: "{" * n,
              lambda n: "\\boxed{" * n + "1" + "}" * n, lambda n: "1," * n + "1", lambda n: "\\text{" * n, lambda n: "1 and " * n + "1", lambda n: " " * n + "a" + " " * n + "!", lambda n: "kg/" * n + "m", lambda n: "9" * n + "!"]  # fmt: skip
    found = [shape(n) for n in depth for shape in shapes]
    found += ["9^9^9^9", "9^{9^{9^{9}}}", "((((9^9)^9)^9)^9)^9", "1e999999999", "10^{10^{10}}", "999999999!", "(10^9)!", "\\binom{10^9}{5*10^8}", "5!!!!!!!", "2^{2^{2^{2^{2^{2}}}}}", "(x+y+z)^{500}", "sin(sin(sin(sin(sin(x)))))^{99}",
              "1 kg^9999999999", "第" + "一" * 400, "百分之" + "九" * 300, "一" + "万" * 20, "__import__('os')", "\\input{/etc/passwd}", "0^{-1}", "(1/0)!", "(" * 60 + "x" + "^9)" * 60]  # fmt: skip
    return found[:60]


def clock_hard_cases(n: int) -> dict:
    from qatoolkit.answers.same_answer import same_answer

    same_answer("x+x", "2x"), same_answer("5 kg", "5 kilograms")  # the worker and the units are loaded
    lists = {
        "numbers": (", ".join(f"{i}/7" for i in range(8)), ", ".join(rf"\frac{{{i}}}{{7}}" for i in range(8))),
        "formulas": (
            "{" + ", ".join(f"(x+{i})^2" for i in range(8)) + "}",
            "{" + ", ".join(f"x^2+{2 * i}x+{i * i}" for i in range(8)) + "}",
        ),
        "reversed": (
            "{" + ", ".join(f"sqrt({i})" for i in range(2, 10)) + "}",
            "{" + ", ".join(rf"\sqrt{{{i}}}" for i in range(9, 1, -1)) + "}",
        ),
        "hostile": (
            ", ".join(f"({i}+x+y+z)^{{400}}" for i in range(8)),
            ", ".join(f"(y+x+{i}+z)^{{400}}" for i in range(8)),
        ),
    }
    seconds = {}
    for name, pair in lists.items():
        started = time.perf_counter()
        same_answer(*pair)
        seconds[f"list_{name}"] = round(time.perf_counter() - started, 3)
    taken = []
    for text in hostile()[-n:]:
        started = time.perf_counter()
        same_answer(text, "x+3"), same_answer(text, text + "+0")
        taken.append(time.perf_counter() - started)
    return seconds | {"hostile_most": round(max(taken), 2), "hostile_all": round(sum(taken), 1), "hostile": len(taken)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer answers, under 50 s")
    parser.add_argument(
        "--data", default=os.environ.get("QATOOLKIT_REAL_DATA", Path(__file__).parents[2] / "shared" / "data")
    )
    parser.add_argument("--pairs", help="JSONL of a, b, right")
    parser.add_argument("--wrong", action="store_true", help="print what went wrong")
    arguments = parser.parse_args()
    from qatoolkit.answers.same_answer import same_answer
    from qatoolkit.seeds import read_seeds

    rows = []
    if Path(arguments.data).is_dir():
        table, _ = read_seeds(arguments.data)
        pools = table.groupby("source")["answer"].apply(list)
        rows = table[["answer", "choices", "answer_index", "source"]].to_dict("records")
        rows = [row | {"pool": pools[row["source"]]} for row in rows]
    n_ours, n_peers = (2_000, 150) if arguments.quick else (len(rows), 1_500)
    random.Random(0).shuffle(rows)
    pairs = make_pairs(rows[:n_ours], 1)
    judges = {"ours": same_answer} | peers()
    ours, judged = rates(pairs, same_answer), {}
    for name, judge in judges.items():
        judged[name] = rates(pairs[: 2 * n_peers], judge)
    for name, found in {"ours, all": ours, **judged}.items():
        wrong, kinds = found.pop("wrong"), found.pop("by_kind")
        print(f"{name}: {found}", flush=True)
        if name == "ours, all":
            print("\n".join(f"  {kind}: {counts}" for kind, counts in kinds.items()))
            if arguments.wrong:
                print("\n".join(f"  {w}" for w in wrong))
    known = {}
    if arguments.pairs:
        given = [json.loads(line) for line in Path(arguments.pairs).read_text(encoding="utf-8").splitlines()]
        for name, judge in judges.items():
            found = [judge(p["a"], p["b"]) for p in given]
            known[name] = {
                "right": sum(f is p["right"] for f, p in zip(found, given, strict=True)),
                "wrong_same": sum(f is True and p["right"] is not True for f, p in zip(found, given, strict=True)),
                "of": len(given),
            }
            print(f"{name}, pairs: {known[name]}")
    hard = clock_hard_cases(15 if arguments.quick else 60)
    print(hard)
    measured = ("wrong_same", "wrong_different", "undecided_same", "undecided_other")
    ratios = {name: round(ours[name], 5) if pairs else None for name in measured}
    for name in judged.keys() - {"ours"} if pairs else ():
        ratios |= {f"{name}_{key}": round(judged[name][key], 4) for key in ("wrong_same", "wrong_different")}
        ratios[f"speed_vs_{name}"] = round(judged["ours"]["pairs_a_second"] / judged[name]["pairs_a_second"], 2)
    print(json.dumps({"benchmark": "answers", "ratios": ratios, "pairs": len(pairs), "known": known, "hard": hard}))


if __name__ == "__main__":
    main()
