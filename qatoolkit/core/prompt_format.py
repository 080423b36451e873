"""The format of question and answer in training documents and in scoring: it must match to the last space."""

import re
from collections.abc import Iterable
from string import ascii_uppercase as LETTERS

PROMPT = {"en": ("Question: {question}\nAnswer:", " "), "zh": ("问题：{question}\n答案：", "")}
RATIONALE = {"en": "\nExplanation: ", "zh": "\n解析："}
_CHOICES_MEANT = re.compile(
    r"\b(?:which|what|who|all|any|none|one|each|either|neither|except)\b(?:\s+\w+){0,3}?\s+(?:of|among|from|in)\s+"
    r"(?:the\s+(?:following|(?:given\s+)?(?:options|choices|alternatives|answers))|these)\b"
    r"|\b(?:which|the\s+(?:correct|best|right))\s+(?:option|choice|alternative|answer)\b"
    r"|(?:下列|以下|下面|下述)[^。？！]{0,30}?(?:哪|何|的是|的有|一[项句组个])|哪个?(?:选项|一?项)",
    re.IGNORECASE,
)
_LIST = re.compile(r"[:：\n]|(?:[,;，；、][^,;，；、]+){2}|\([a-zA-Z1-9]\)|[①-⑩]|\b[A-D][.)．、]\s?\S")


def as_prompt_and_answer(
    question: str, answer: str, language: str, *, choices: Iterable[str] = (), rationale: str | None = None
) -> tuple[str, str]:
    """A training document in two parts: the prompt, with any choices one per line, and the answer with the space before
    it, followed by the rationale if there is one."""
    language = "zh" if language == "zh" else "en"
    prompt, gap = PROMPT[language]
    before, line, after = prompt.partition("\n")
    listed = "".join(f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, choices, strict=False))
    end = RATIONALE[language] + rationale.strip() if rationale and rationale.strip() else ""
    return before.format(question=question) + line + listed + after, gap + answer + end


def refers_to_choices(question: str) -> bool:
    """Whether a question refers to choices ("Which of the following ...", 下列哪项), which it may need to make sense."""
    return _CHOICES_MEANT.search(question) is not None


def needs_choices(question: str) -> bool:
    """Whether a question refers to choices but lists none itself, so that it makes no sense without them."""
    found = _CHOICES_MEANT.search(question)
    return found is not None and not _LIST.search(question)


def as_document(question: str, answer: str, language: str) -> str:
    """A question and its answer as one training document."""
    return "".join(as_prompt_and_answer(question, answer, language))
