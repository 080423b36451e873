"""Findings about data: seeds, labels, the plan, what was written and accepted, and what curation keeps."""

import pandas as pd

from qatoolkit.core.stats import CELL
from qatoolkit.core.taxonomy import HIGH, STEM
from qatoolkit.evaluation.probe import UNLABELLED
from qatoolkit.figures.style import arm_name
from qatoolkit.run.findings.phrases import by_reason, counted, meaning, percent, points, unpaired
from qatoolkit.run.store import Run
from qatoolkit.run.tables.curation import diversity
from qatoolkit.run.tables.seeds import agreement
from qatoolkit.run.tables.steps import accepted_by_cell
from qatoolkit.run.tables.steps import survival as surviving
from qatoolkit.synthesis.budget import UNIFORM
from qatoolkit.synthesis.write import degradation

FURTHER = ("degraded", "degraded_again", "repeated")  # rejects that are attempts at a question that was written


def seeds(run: Run):
    quality = run.read("seeds").quality
    faults = quality[(quality["reason"] != "accepted") & quality["rows_in"].gt(0)]
    rows = int(quality.drop_duplicates("source")["rows_in"].sum())
    rejected = int(faults["count"].sum())
    yield (
        f"{rows - rejected:,} of {rows:,} rows became seed questions"
        f"{f'; {rejected:,} were rejected ({by_reason(faults)}).' if rejected else '.'}"
    )


def annotate(run: Run):
    stored, seeds = run.read("annotate"), run.read("seeds").seeds
    yield f"{len(stored.seeds):,} of {len(seeds):,} seeds are labelled."
    found = agreement(run).query("language == 'all'").dropna(subset=["accuracy", "kappa"])
    if found.empty:
        yield "How often the labels are right is unknown here: compare some with your own (`qt.agreement`)."
        return
    labels = [f"{row.label} {counted(row.accuracy, row.n)}, kappa {row.kappa:.2f}" for row in found.itertuples()]
    yield f"The annotator agrees with the labels by construction: {'; '.join(labels)}."


def plan(run: Run):
    plan, settings = run.read("plan"), run.profile.plan
    planned = plan.budget
    enough = planned["n"] >= settings.low_n
    judged = planned[enough & planned["accuracy"].notna()]
    weak = plan.weak[~plan.weak[CELL].eq(UNLABELLED).any(axis=1)]
    below = "chance + {} of the rest" if settings.above_chance else "the target of {}"
    target = settings.target + (weak["chance"] * (1 - settings.target) if settings.above_chance else 0)
    doubtful, few = int((weak["high"] >= target).sum()), int((~enough & planned["n"].gt(0)).sum())
    doubts = [f"the interval of {doubtful} of them includes it"] * (doubtful > 0)
    doubts += [f"{few} cells with fewer questions are not judged"] * (few > 0)
    yield (
        f"{len(weak)} of the {len(judged)} cells with at least {settings.low_n} questions are weak: below "
        f"{below.format(percent(settings.target))}{'; ' if doubts else ''}{', and '.join(doubts)}."
    )
    if settings.rule == UNIFORM:
        yield "The budget is spread evenly."
        return
    if (used := planned["rule"].iloc[0]) != settings.rule:
        yield f"The rule {settings.rule} gives no cell any weight here, so the budget follows {used}."
    shares = [planned.loc[planned[c].isin(part), "budget"].sum() / planned["budget"].sum()
              for c, part in (("discipline", STEM), ("difficulty", HIGH))]  # fmt: skip
    top = planned.loc[planned["budget"].idxmax()]
    yield (
        f"They share {planned['budget'].sum():,} questions, {percent(shares[0])} of them in STEM and "
        f"{percent(shares[1])} at H4 and H5; most go to {top['discipline'].replace('_', ' ')} {top['difficulty']} "
        f"({top['budget']:,})."
    )


def data_set(run: Run, name: str):
    stored = run.read(name)
    made, questions, rejects = stored.made, stored.questions, stored.rejects
    has_question = rejects["question"].notna() if "question" in rejects else pd.Series(False, index=rejects.index)
    further = has_question & rejects["reason"].isin(FURTHER)
    lost, failed = rejects[has_question & ~further], int((~has_question).sum())
    by_plan = {"asked_discipline", "asked_difficulty"} <= set(made) and len(made)
    n, why = f"{len(questions) + len(lost):,}", f" ({by_reason(counts_of(lost))} rejected)" if len(lost) else ""
    planned = (
        f"of {accepted_by_cell(run, name)['budget'].sum():,} questions planned {n}" if by_plan else f"{n} questions"
    )
    yield (
        f"{arm_name(name)}: {planned} were written and {len(questions):,} accepted{why}"
        f"{f'; further attempts and repeats discarded: {further.sum():,}' if further.any() else ''}"
        f"{f'; requests without a question: {failed:,}' if failed else ''}."
    )
    if by_plan:
        yield from _as_asked(run, made, questions)
    wrong = stored.refinement if "refinement" in stored and "decided" in questions else {}
    if {"wrong_before", "wrong_after", "n", "n_after"} <= set(wrong) and wrong["n"] and wrong["n_after"]:
        before, after = (
            counted(wrong[f"wrong_{when}"], wrong[n]) for when, n in (("before", "n"), ("after", "n_after"))
        )
        yield f"Wrong answers, against the truth by construction: {before} as written, {after} after refinement."
    if "diagnostics" in stored and "coverage" in stored.diagnostics:
        walk = stored.diagnostics.iloc[0]
        yield (
            f"{walk['paths']:,.0f} walks of {walk['mean_length']:.1f} knowledge points reach "
            f"{percent(walk['coverage'])} of the linked ones and {walk['distinct_seeds']:,.0f} seeds; visits and "
            f"popularity have a rank correlation of {walk['spearman']:.2f}. This counts paths: a question need not use "
            "every knowledge point of its path."
        )


def _as_asked(run: Run, made: pd.DataFrame, questions: pd.DataFrame):
    """Whether the labels are those asked for, and how many questions are hard."""
    known = made.dropna(subset=["discipline", "asked_discipline"])
    fell, parts = degradation(made), []
    hard, of_seeds = (table["difficulty"].isin(HIGH).mean() for table in (questions, run.read("annotate").seeds))
    if len(known):
        agree = float((known["discipline"] == known["asked_discipline"]).mean())
        parts.append(f"{counted(agree, len(known))} are labelled in the discipline asked for")
    if fell["n"]:
        parts.append(f"of those asked for at H4 or H5, {counted(fell['degraded'], fell['n'])} are labelled lower")
    if len(questions):
        parts.append(
            f"H4 and H5 are {percent(made['asked_difficulty'].isin(HIGH).mean())} of the levels asked for, "
            f"{percent(hard)} of the accepted questions and {percent(of_seeds)} of the seeds"
        )
    said = "; ".join(parts)
    yield f"{said[0].upper()}{said[1:]}."


def survival(run: Run):
    """Whether the questions of the main data set that survive verification are the easy ones, and are as planned."""
    name = run.profile.main_set
    if name is None or not {"asked_discipline", "asked_difficulty"} <= set(run.read(name).made):
        yield "Which questions survive is unknown: those of the main arm do not record what was asked for."
        return
    table = surviving(run, name)
    step = "curated" if "curated" in set(table["step"]) else "refined"
    count = table.pivot(index="difficulty", columns="step", values="n").drop(index="all")[["written", step]]
    high, low = (count[count.index.isin(HIGH) == wanted].sum() for wanted in (True, False))
    if high["written"] and low["written"]:
        groups = [pd.DataFrame({"correct": [True] * g[step] + [False] * (g["written"] - g[step])}) for g in (high, low)]
        difference = unpaired(*groups)
        says = meaning(difference, "the hard ones survive more often", "the survivors are the easier ones")
        hard, easy = (counted(level[step] / level["written"], level["written"]) for level in (high, low))
        yield (
            f"{arm_name(name)}, {step} at the level asked for or above: {hard} of the questions written for H4 and H5, {easy} of "
            f"those for H1 to H3. The difference is {points(difference)}, unpaired: {says}."
        )
    cells = accepted_by_cell(run, name)
    planned = cells[cells["budget"] > 0]
    met = int((planned["accepted"] >= planned["budget"]).sum())
    refill = "" if run.profile.plan.waves > 1 else "; `plan.waves` above 1 asks again for what is missing"
    yield (
        f"Exactly as asked for, by discipline and level: {cells['accepted'].sum():,} of {cells['budget'].sum():,} "
        f"questions, and {met} of {len(planned)} planned cells have all of theirs{refill}."
    )


def adjustment(run: Run, name: str):
    """How many questions of the disciplines of a trial have the level asked for, with the plan's levels and with its."""
    levels = run.read(name).levels
    for difficulties, rows in levels.groupby("difficulties", sort=False):
        asked, missed = int(rows["asked"].sum()), int((rows["asked"] - rows["got"]).clip(lower=0).sum())
        divergences = ", ".join(f"{d} {kl:.3f}" for d, kl in rows.groupby("discipline")["kl"].first().items())
        yield (
            f"With the levels of {'the plan' if difficulties == 'plan' else '`adjust`'}: "
            f"{counted(1 - missed / asked, asked) if asked else 'no question'} "
            f"of the questions have a level that was asked for; the labels diverge from `adjust` by {divergences} nats."
        )


def curate(run: Run):
    stored = run.read("curate")
    if stored.report.empty:
        return
    for name, rows in stored.report[stored.report["outcome"] != "flagged"].groupby("dataset", sort=False):
        kept, lost = rows[rows["outcome"] == "kept"]["rows"].sum(), rows[rows["outcome"] == "rejected"]
        why = by_reason(lost.groupby("reason", as_index=False)["rows"].sum().rename(columns={"rows": "count"}))
        total = kept + lost["rows"].sum()
        yield f"{arm_name(name)}: {kept:,} of {total:,} questions may be trained on{f'; removed: {why}' if why else ''}."
    if "controls" in stored:
        yield from _recall(stored.controls)
    yield from _written_from_exam_seeds(stored.report)
    yield from _diversity(run)


def _recall(controls: pd.DataFrame):
    """How many planted exam questions decontamination finds, by disguise."""
    found = controls[controls["n"] > 0].groupby("kind", sort=False)[["n", "found"]].sum()
    if found.empty:
        return
    whole, part = found[found["found"] == found["n"]], found[found["found"] < found["n"]]
    said = []
    if len(whole):
        said.append(f"{counted(1.0, int(whole['n'].sum()))} in {len(whole)} disguises ({', '.join(whole.index)})")
    said += [f"{kind} {counted(row['found'] / row['n'], row['n'])}" for kind, row in part.iterrows()]
    untested = [kind for kind in controls["kind"].unique() if kind not in found.index]
    yield (
        f"Exam questions planted among the kept ones and found: {'; '.join(said)}"
        f"{'; not tested: ' + ', '.join(untested) if untested else ''}."
    )


def _written_from_exam_seeds(report: pd.DataFrame):
    """How many kept questions were written from seeds that an exam has."""
    found = (
        report[(report["reason"] == "exam_parent") & (report["outcome"] == "flagged")].groupby("dataset")["rows"].sum()
    )
    kept = report[report["outcome"] == "kept"].groupby("dataset")["rows"].sum()
    if len(found):
        listed = ", ".join(f"{arm_name(name)} {n:,} of {kept[name]:,}" for name, n in found.items())
        yield (
            f"Kept questions that were written from a seed that an exam has, without being in an exam themselves: "
            f"{listed}; `curate.reject` with exam_parent removes them."
        )


def _diversity(run: Run):
    table = diversity(run).dropna(subset="self_similarity")
    if len(table) > 1:
        each = [
            f"{arm_name(row.set)} {percent(row.distinct_3)}, {row.self_similarity:.2f} ({row.low:.2f} to {row.high:.2f})"
            f"{'' if pd.isna(row.entropy_share) else f', {percent(row.entropy_share)}'}"
            for row in table.itertuples()
        ]
        yield (
            "Diversity at equal size (different 3-grams among all; similarity to the nearest other question, n "
            f"{table['compared_rows'].min():,.0f}; entropy over cells, of its maximum): {'; '.join(each)}."
        )


def counts_of(rejects: pd.DataFrame) -> pd.DataFrame:
    return rejects.groupby("reason").size().rename("count").reset_index()
