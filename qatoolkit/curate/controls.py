"""Positive controls for decontamination: disguised exam questions are planted, and recall and precision measured."""

import random
import re
from collections.abc import Iterable, Mapping

import pandas as pd

from qatoolkit.core.stats import wilson
from qatoolkit.core.text import CJK, ONES, TENS
from qatoolkit.curate.comparison_text import SCALES, stem, text_of, tokens, values_of
from qatoolkit.curate.decontaminate import decontaminate, exam_options, index_exams
from qatoolkit.curate.exam_arrays import NEGATIONS
from qatoolkit.curate.exam_index import ExamIndex
from qatoolkit.curate.settings import CurateSettings

CARRIERS = {
    "en": (
        "Here is an exercise from my notebook that I could not finish on Friday.",
        "A friend of mine sent me this and asked for help.",
        "Please explain each step to a beginner and give the final result at the end.",
        "I would also like to know which chapter of the textbook treats it.",
    ),
    "zh": (
        "下面这道练习出自我的笔记本，上个星期没有来得及做。",
        "同学昨天发给我这道题，请我帮忙看看。",
        "请向初学者解释每个步骤，最后写出结果。",
        "另外我还想知道课本里哪个章节讲到了这个内容。",
    ),
}
_FREE_DIGITS = re.compile(r"(?<![\w.,\\^{])\d{1,6}(?![\w^}]|[.,]\d)", re.ASCII)
_WORD = re.compile(r"(?<![\\A-Za-z'])[A-Za-z]{2,}(?![A-Za-z'])")
_KEPT = NEGATIONS | {"and", "or", "point", *ONES, *TENS, *SCALES}  # never replaced: that would change the question


def plant(
    table: pd.DataFrame,
    kinds: Iterable[str] | None = None,
    n: int = 100,
    seed: int = 0,
    translations: Mapping[str, Mapping] | None = None,
) -> pd.DataFrame:
    """Disguised exam questions: the exam's columns, `kind` and `planted` (the id of the original), with new ids.

    At most `n` for each kind of `KINDS` and language, from the questions that the kind can change (reordering needs
    choices). `translations` has `question` and `answer` in another language by id, for the kind "translated". ValueError
    for an unknown kind."""
    kinds = list(KINDS if kinds is None else kinds)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"unknown kind {unknown[0]!r}; allowed: {', '.join(KINDS)}")
    table = table.reset_index(drop=True)
    languages = values_of(table, "language")
    languages = [
        lang or ("zh" if re.search(f"[{CJK}]", text_of(q)) else "en")
        for lang, q in zip(languages, table["question"], strict=True)
    ]
    vocabulary = {
        lang: _vocabulary(table["question"][[lang == other for other in languages]]) for lang in set(languages)
    }
    rows = []
    for kind in kinds:
        for language in sorted(vocabulary):
            rng = random.Random(f"{seed} {kind} {language}")
            order = [i for i, other in enumerate(languages) if other == language]
            rng.shuffle(order)
            made = 0
            for i in order:
                if made == n:
                    break
                row = table.iloc[i].to_dict()
                item = {"question": text_of(row["question"]), "choices": values_of(table.iloc[[i]], "choices")[0]}
                new = KINDS[kind](item, rng, language, vocabulary[language], (translations or {}).get(row["id"]))
                if new is None or not tokens(item["question"]):
                    continue
                made += 1
                rows.append(
                    row | new | {"kind": kind, "planted": row["id"], "id": f"{row['id']} {kind}", "language": language}
                )
    return pd.DataFrame(rows, columns=[*dict.fromkeys([*table.columns, "choices", "language", "kind", "planted"])])


def controls(
    table: pd.DataFrame,
    exams: Mapping[str, pd.DataFrame],
    settings: CurateSettings | None = None,
    *,
    index: ExamIndex | None = None,
    kinds: Iterable[str] | None = None,
    n: int = 100,
    seed: int = 0,
    translations: Mapping[str, Mapping] | None = None,
) -> pd.DataFrame:
    """Recall and precision of decontamination by kind of disguise and language, from exam questions planted beside
    `table`, which should be clean: kind, language, n, found, recall with Wilson's 95% interval, clean (rows of the
    language in the table), lost (rows of these that are reported too), precision with interval.

    Recall is the share of planted questions that are reported; precision is found / (found + lost). A kind that could
    not be planted, such as "translated" without `translations`, has n = 0 and no figures."""
    settings = settings or CurateSettings()
    index, options = index or index_exams(exams, settings), exam_options(settings)
    exam = pd.concat(exams.values(), ignore_index=True)
    kinds = list(KINDS if kinds is None else kinds)
    planted = plant(exam, kinds, n, seed, translations)
    found = set(decontaminate(planted, index, **options)["row"])
    lost = table.iloc[sorted(set(decontaminate(table, index, **options)["row"]))]
    planted["found"] = [row in found for row in range(len(planted))]
    rows = []
    for kind in kinds:
        for language in sorted(planted["language"].unique()):
            group = planted[(planted["kind"] == kind) & (planted["language"] == language)]
            hits, size = int(group["found"].sum()), len(group)
            wrong = sum(value == language for value in values_of(lost, "language"))
            clean = sum(value == language for value in values_of(table, "language"))
            rows.append((kind, language, size, hits, *_share(hits, size), clean, wrong, *_share(hits, hits + wrong)))
    columns = ["kind", "language", "n", "found", "recall", "recall_low", "recall_high", "clean", "lost", "precision"]
    return pd.DataFrame(rows, columns=[*columns, "precision_low", "precision_high"])


def _share(part: int, whole: int) -> tuple[float | None, float | None, float | None]:
    return (part / whole, *wilson(part, whole)) if whole else (None, None, None)


def _vocabulary(questions: Iterable[str]) -> list[str]:
    found = [
        word for text in questions for word in [*_WORD.findall(text_of(text)), *re.findall(f"[{CJK}]", text_of(text))]
    ]
    return sorted(set(found) - _KEPT)


def _re_punctuated(item, rng, language, words, translation):
    marks = {
        ",": " ",
        ".": " ;",
        ";": ",",
        ":": " -- ",
        "?": " ??",
        "!": ".",
        "，": ",",
        "。": " . ",
        "？": "?",
        "；": "，",
        "：": " ",
    }
    text = re.sub(
        r"(?<!\d)[,.;:?!，。？；：](?=\s|$|[" + CJK + "])|(?<=[" + CJK + "])[,，。;:；：?？]",
        lambda m: marks[m[0]],
        item["question"],
    )
    return {"question": text} if text != item["question"] else None


def _renumbered(item, rng, language, words, translation):
    number = rng.randint(1, 60)
    forms = (
        ("{}. ", "({}) ", "Question {}: ", "{}) ")
        if language != "zh"
        else ("{}. ", "({}) ", "第{}题 ", "{}、", "例{}：")
    )
    return {"question": rng.choice(forms).format(number) + stem(item["question"])}


def _reordered(item, rng, language, words, translation):
    choices = item["choices"]
    if choices is None or len(set(map(text_of, choices))) < 2:
        return None
    return {"choices": [*choices[1:], choices[0]]}


def _inlined(item, rng, language, words, translation):
    choices = item["choices"]
    if choices is None or not len(choices):
        return None
    form = rng.choice(("\n{}. {}", " ({}) {}", "\n{}) {}"))
    lines = [form.format(letter, text_of(choice)) for letter, choice in zip("ABCDEFGHIJ", choices, strict=False)]
    return {"question": item["question"] + "".join(lines), "choices": None}


def _embedded(item, rng, language, words, translation):
    before, after = rng.sample(CARRIERS["zh" if language == "zh" else "en"], 2)
    return {"question": f"{before}{'' if language == 'zh' else ' '}{item['question']} {after}"}


def _worded(item, rng, language, words, translation):
    import cn2an

    spell = (lambda m: cn2an.an2cn(m[0])) if language == "zh" else (lambda m: _spell(int(m[0])))
    text = _FREE_DIGITS.sub(lambda m: m[0] if m[0][0] == "0" and len(m[0]) > 1 else spell(m), item["question"])
    return {"question": text} if text != item["question"] else None


def _spell(number: int) -> str:
    for name, scale in reversed(SCALES.items()):
        if number >= scale:
            rest = number % scale
            return f"{_spell(number // scale)} {name}" + (f" {'and ' * (rest < 100)}{_spell(rest)}" if rest else "")
    if number < 20:
        return list(ONES)[number]
    return list(TENS)[number // 10 - 2] + (f"-{list(ONES)[number % 10]}" if number % 10 else "")


def _wrapped(item, rng, language, words, translation):
    text, width, found = item["question"], 20 if language == "zh" else 30, ""
    while len(text) > width:
        cut = width
        while cut < len(text) and not (
            text[cut - 1].isspace() or re.fullmatch(f"[{CJK}]|[a-z]{{2}}", text[cut - 1 : cut + 1].strip())
        ):
            if re.fullmatch(f"[{CJK}]", text[cut - 1]):
                break
            cut += 1
        hyphen = "-" * bool(re.fullmatch("[a-z]{2}", text[cut - 1 : cut + 1]))
        found, text = f"{found}{text[:cut]}{hyphen}\n", text[cut:]
    return {"question": found + text} if found else None


def _zero_width(item, rng, language, words, translation):
    return {"question": "".join(c + rng.choice(("\u200b", "\u200d", "\u2060", "", "")) for c in item["question"])}


def _translated(item, rng, language, words, translation):
    return {"choices": None, **translation} if translation else None


def _replaced(share: float):
    def disguise(item, rng, language, words, translation):
        pattern = re.compile(f"[{CJK}]") if language == "zh" else _WORD
        candidates = [m for m in pattern.finditer(item["question"]) if m[0].casefold() not in _KEPT]
        candidates = [m for m in candidates if tokens(m[0]) == [m[0].casefold()]]  # no numerals
        if len(candidates) * share < 0.5 or len(words) < 10:
            return None
        text = item["question"]
        for match in sorted(rng.sample(candidates, round(len(candidates) * share)), key=lambda m: -m.start()):
            text = text[: match.start()] + rng.choice(words) + text[match.end() :]
        return {"question": text}

    return disguise


KINDS = {
    "verbatim": lambda item, *rest: {},
    "re-punctuated": _re_punctuated,
    "renumbered": _renumbered,
    "choices reordered": _reordered,
    "inlined": _inlined,
    "embedded": _embedded,
    "digits as words": _worded,
    "wraps": _wrapped,
    "zero-width": _zero_width,
    "10% replaced": _replaced(0.1),
    "30% replaced": _replaced(0.3),
    "translated": _translated,
}
