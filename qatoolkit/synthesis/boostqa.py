"""BoostQA: multi-grade and high-difficulty synthesis from seeds, the degradation check, and refinement.

Stated in arXiv 2508.01326: a reasoning teacher writes STEM-focused multi-grade and high-difficulty questions, and a
second teacher refines the answers. Our reading: H4 and H5 cells of the plan go to high-difficulty synthesis, the others
to multi-grade synthesis with one question per grade. Questions are annotated again; one that missed its level is
requested again with the reason (`attempts`), and kept under its true label if no attempt reaches the level."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pandas as pd

from qatoolkit.core.qa_table import PASS
from qatoolkit.core.taxonomy import DIFFICULTIES, GRADES, HIGH
from qatoolkit.synthesis.budget import UNIFORM
from qatoolkit.synthesis.refine import refine_or_keep
from qatoolkit.synthesis.settings import BoostQASettings
from qatoolkit.synthesis.strategies import Context, Strategy, register
from qatoolkit.synthesis.write import DEGRADED, write_and_label
from qatoolkit.teacher import prompts

EACH = 2  # questions per high-difficulty request


def requests(
    seeds: pd.DataFrame, plan: pd.DataFrame, settings: BoostQASettings, seed: int = 0, wave: int = 0
) -> pd.DataFrame:
    """One row per teacher request: strategy, parent seed, language, requested discipline and difficulty, payload.

    The seeds of a cell's discipline are used in turn, in a random order that differs by wave; if they have the
    student's pass rate (`plan.by: measured`), in ascending order of it. A discipline without seeds is skipped and its
    budget not spent. If a strategy is switched off, its cells get plain requests: more questions like the seed, at its
    grade."""
    rng = random.Random(f"boostqa/{seed}" + f"/{wave}" * bool(wave))
    rows, plain = [], Counter()
    pools = {d: group.to_dict("records") for d, group in seeds.groupby("discipline", sort=True)}
    for cell in plan[plan["budget"] > 0].to_dict("records"):
        pool = pools.get(cell["discipline"])
        if not pool:
            continue
        sources = itertools.cycle(_hardest_first(rng.sample(pool, len(pool))))
        high = cell["difficulty"] in HIGH
        active = settings.high_difficulty if high else settings.multi_grade
        strategy = "high_difficulty" if high and active else "multi_grade"
        each = EACH if strategy == "high_difficulty" else len(GRADES)
        for request in range(math.ceil(cell["budget"] / each)):
            source = next(sources)
            count = min(each, cell["budget"] - request * each)
            payload = {"seed": prompts.shown(source), "round": request // len(pool)} | ({"wave": wave} if wave else {})
            if strategy == "high_difficulty":
                payload |= {"difficulty": cell["difficulty"], "count": count}
            elif active:
                payload["wanted"] = [{"grade": g, "difficulty": cell["difficulty"]} for g in list(GRADES)[:count]]
            else:
                # Several cells send the same request, which the ledger would answer once: number them.
                payload["wanted"] = [{"grade": source["grade"]}] * count
                payload["round"] = plain[source["id"], count]
                plain[source["id"], count] += 1
            rows.append(
                {
                    "strategy": strategy,
                    "parents": [source["id"]],
                    "language": source["language"],
                    "asked_discipline": cell["discipline"],
                    "asked_difficulty": cell["difficulty"],
                    "payload": payload,
                }
            )
    return pd.DataFrame(rows)


def _hardest_first(pool: list[dict]) -> list[dict]:
    """Seeds by the student's pass rate (`plan.by: measured`), those without one last."""
    rates = np.array([seed.get(f"{PASS}student") for seed in pool], float)
    return [pool[i] for i in np.argsort(rates, kind="stable")]  # nulls last


def first_requests(context: Context) -> pd.DataFrame:
    """The requests that `write` sends first."""
    return requests(context.seeds, context.plan, context.settings, context.seed, context.wave)


def write(context: Context) -> dict:
    """BoostQA for a plan: synthesis, then refinement (`strategies.Strategy.write`)."""
    teachers = context.teachers
    made, rejects = write_and_label(
        first_requests(context), teachers.synthesiser, teachers.annotator, context.settings.attempts
    )
    questions, rejects = refine_or_keep(made, rejects, teachers.refiner, context.settings)
    return {"made": made, "questions": questions, "rejects": rejects}


def expected(profile, questions: int) -> tuple[float, float]:
    """Requests needed to write `questions` questions, and questions to label, if every attempt at the hard ones misses
    a share `DEGRADED` of them."""
    share = profile.plan.high if profile.plan.rule != UNIFORM else len(HIGH) / len(DIFFICULTIES)
    hard = questions * share if profile.boostqa.high_difficulty else 0
    again = hard * sum(DEGRADED**attempt for attempt in range(1, profile.boostqa.attempts))
    return (questions - hard) / len(GRADES) + hard / EACH + again, questions + again


register(
    Strategy(
        name="boostqa",
        settings=BoostQASettings,
        write=write,
        requests=expected,
        asks=first_requests,
        prompts=("multi_grade", "high_difficulty", "annotate", "refine", "solve"),
    )
)
