"""A run with seeds, an exam and a plan that is given, so that no model is trained and probed for it."""

import json
from collections import Counter

import pandas as pd
from own_world import ArithmeticTeacher, ask
from teacher_server import failure

from qatoolkit.run import stages
from qatoolkit.run.contracts import Stage
from qatoolkit.run.store import open_run

OPERATIONS = ("plus", "minus", "times")
LABELS = {"discipline": "mathematics", "difficulty": "H1", "grade": "primary"}


class Counting(ArithmeticTeacher):
    """Counts what it answered by the text of the request, and fails once that is `limit` in all; one hard question in
    three is easier than asked for, at the first attempt."""

    def __init__(self):
        self.limit, self.answered = None, Counter()
        super().__init__()

    async def _handle(self, request):
        if self.limit is not None and self.answered.total() >= self.limit:
            return failure(503)
        self.answered[json.dumps((await request.json())["messages"])] += 1
        return await super()._handle(request)

    def _high_difficulty(self, given):
        return self._write(given, given["count"], hard="too_easy" in given or len(json.dumps(given)) % 3 > 0)


def plan_of(**budgets) -> pd.DataFrame:
    """A plan of cells named like mathematics_H1."""
    rows = [(*cell.rsplit("_", 1), n) for cell, n in budgets.items()]
    plan = pd.DataFrame(rows, columns=["discipline", "difficulty", "budget"])
    return plan.assign(n=20, accuracy=0.5, deficit=[0.1 + 0.01 * place for place in range(len(plan))])


def planned_run(folder, url: str, plan: pd.DataFrame, name: str = "mine", **settings):
    """A run up to its plan in `folder`, with teachers at `url`; its seeds are labelled, so nobody was asked."""
    folder.mkdir(exist_ok=True, parents=True)
    rows = [ask(i + 2, OPERATIONS[i % 3], i + 5) | LABELS | {"knowledge_points": ["sums"]} for i in range(12)]
    exam = [ask(i + 50, "plus", i + 5) | LABELS for i in range(4)]
    for name_of, table in (("seeds", rows), ("exam", exam)):
        (folder / f"{name_of}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    profile = {
        "profile": "smoke",
        "seeds": {"sources": ["seeds.jsonl"]},
        "exams": {"final": "exam.jsonl"},
        "teacher": {"base_url": url, "synthesiser": "writer", "refiner": "checker", "annotator": "checker"}
        | {"attempts": 1, "endpoint_name": "arithmetic"},
        "compare": [],
        "ablations": [],
    }
    (folder / f"{name}.yaml").write_text(json.dumps(profile | settings))
    run = open_run(name, profile=folder / f"{name}.yaml", root=folder / "results", change=True)
    for make in (stages.exams, stages.seeds, stages.annotate):
        make(run, log=str)
    tables = {"budget": plan, "weak": plan}
    run.complete("plan", Stage("plan", reads=("annotate",)), lambda folder: tables, log=str)
    return run
