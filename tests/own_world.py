"""A user's own world in files: seeds, an exam, general text, checkpoints, and a teacher of arithmetic behind HTTP.

Nothing here knows the textbook. `write_world(folder, url)` writes it and returns its profile."""

import json
import random
import re

from teacher_server import Server, completion

OPERATIONS = {"plus": lambda a, b: a + b, "minus": lambda a, b: a - b, "times": lambda a, b: a * b}
NAMES = {"plus": "addition", "minus": "subtraction", "times": "multiplication"}
PHYSICS = "A cart of {a} kg is loaded with {b} kg. What is its mass in kg?"


def ask(a: int, operation: str, b: int, form: str = "What is {a} {operation} {b}?") -> dict:
    """A question of arithmetic with four choices."""
    right = OPERATIONS[operation](a, b)
    return {
        "question": form.format(a=a, b=b, operation=operation),
        "choices": [str(v) for v in (right, right + 1, right + 10, right - 2)],
        "answer": str(right),
    }


def solve(question: str) -> str | None:
    """The right answer to a question of this world; None for any other."""
    if found := re.fullmatch(r"What is (\d+) (\w+) (\d+)(?:, and then (\w+) (\d+))?\?", question):
        value = OPERATIONS[found[2]](int(found[1]), int(found[3]))
        return str(OPERATIONS[found[4]](value, int(found[5])) if found[4] else value)
    if found := re.fullmatch(r"A cart of (\d+) kg is loaded with (\d+) kg\. What is its mass in kg\?", question):
        return str(int(found[1]) + int(found[2]))
    return None


class ArithmeticTeacher(Server):
    """An OpenAI-compatible server on the loopback that knows this world: it labels, writes and solves its questions."""

    def __init__(self):
        self.asked = []
        super().__init__()

    async def _handle(self, request):
        body = await request.json()
        task = re.match(r"(?:Task|任务)\W*(\w+)", body["messages"][0]["content"])[1]
        given = json.loads(body["messages"][1]["content"])
        self.asked.append(task)
        return completion(json.dumps(getattr(self, f"_{task}")(given)))

    def _annotate(self, given) -> dict:
        asked = given["question"]
        digits = max((len(n) for n in re.findall(r"\d+", asked)), default=1)
        level = "H4" if "and then" in asked else f"H{min(digits, 3)}"
        return {"discipline": "physics" if "cart" in asked else "mathematics", "difficulty": level, "grade": "primary"}

    def _knowledge_points(self, given) -> dict:
        asked = given["question"]
        points = [NAMES[o] for o in OPERATIONS if o in asked.split()] or ["mass", "addition"]
        digits = max((len(n) for n in re.findall(r"\d+", asked)), default=1)
        return {"knowledge_points": [*points, ("digits", "tens", "hundreds")[min(digits, 3) - 1]]}

    def _write(self, given: dict, count: int, hard: bool) -> dict:
        draw, found = random.Random(json.dumps(given)), []  # the same request is answered the same
        for _ in range(count):
            operation = draw.choice(list(OPERATIONS))
            asked = f"What is {draw.randrange(2, 99999)} {operation} {draw.randrange(2, 9999)}"
            asked += f", and then plus {draw.randrange(2, 999)}?" if hard else "?"
            found.append({"question": asked, "answer": solve(asked), "rationale": "Computed."})
        return {"questions": found}

    def _multi_grade(self, given) -> dict:
        made = self._write(given, len(given["wanted"]), hard=False)
        for question, wanted in zip(made["questions"], given["wanted"], strict=True):
            question["grade"] = wanted["grade"]
        return made

    def _high_difficulty(self, given) -> dict:
        return self._write(given, given["count"], hard=True)

    _link = _high_difficulty

    def _refine(self, given) -> dict:
        return {"answer": solve(given["question"]) or "unknown", "rationale": "Computed."}

    def _solve(self, given) -> dict:
        return {"answer": solve(given["question"]) or "unknown"}


def write_world(folder, url: str) -> str:
    """Write seeds, an exam, text, three checkpoints made by plain transformers, and a profile; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(1)

    def some(
        n: int, least: int, form: str = "What is {a} {operation} {b}?", operations=tuple(OPERATIONS)
    ) -> list[dict]:
        return [
            ask(draw.randrange(least, 10 * least), draw.choice(operations), draw.randrange(2, 10), form)
            for _ in range(n)
        ]

    seeds = [row for least in (1, 10, 100) for row in some(14, least)] + some(12, 10, PHYSICS, ("plus",))
    exam = [row for least in (1, 10, 100) for row in some(8, least)] + some(8, 100, PHYSICS, ("plus",))
    for name, rows in (("seeds", seeds), ("exam", exam)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    text = "".join(
        f"The number {i} comes after {i - 1}.\nIt is {'even' if i % 2 == 0 else 'odd'}.\n\n" for i in range(1, 6000)
    )
    (folder / "text").mkdir(exist_ok=True)
    (folder / "text" / "numbers.txt").write_text(text, encoding="utf-8")
    write_checkpoints(folder, [*(r["question"] for r in seeds), text[:20_000]])
    profile = folder / "mine.yaml"
    profile.write_text(PROFILE.format(url=url), encoding="utf-8")
    return str(profile)


def write_checkpoints(folder, texts: list[str]) -> None:
    """A tiny Llama, an earlier checkpoint of it, and a smaller one, with one tokenizer."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=400, special_tokens=["<end>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<end>", pad_token="<end>")
    for seed, (name, hidden) in enumerate({"student": 48, "student-early": 48, "small": 32}.items()):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=512,
        )
        LlamaForCausalLM(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


PROFILE = """
profile: own
seeds: {{sources: [seeds.jsonl]}}
exams: {{final: exam.jsonl}}
general: {{sources: [text/]}}
teacher: {{base_url: {url}, synthesiser: writer, refiner: checker, annotator: checker}}
student: {{checkpoint: student}}
ladder:
  - {{checkpoint: student, tokens: 2_000_000}}
  - {{checkpoint: student-early, tokens: 200_000}}
  - {{checkpoint: small, tokens: 2_000_000}}
plan: {{questions: 60, low_n: 2}}
boostqa: {{trial: 20}}
midtrain: {{tokens: 12_000}}
probe: {{every: 4000}}
scaling: {{tokens: [0.5, 1.0]}}
ablations: [{{boostqa.refine: false}}]
ablation_seeds: 2
evaluate: {{bootstrap: 200}}
"""
