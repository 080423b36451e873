"""The format of question and answer in training documents and in scoring, which must be the same to the space."""

PROMPT = {"en": ("Question: {question}\nAnswer:", " "), "zh": ("问题：{question}\n答案：", "")}


def as_prompt_and_answer(question: str, answer: str, language: str) -> tuple[str, str]:
    """A training document in two parts: the prompt, and the answer with the space before it."""
    prompt, gap = PROMPT["zh" if language == "zh" else "en"]
    return prompt.format(question=question), gap + answer


def as_document(question: str, answer: str, language: str) -> str:
    """A question and its answer as one training document."""
    return "".join(as_prompt_and_answer(question, answer, language))
