"""Tables of curation: what was removed and why, near-duplicates and similar pairs that were kept, diversity, mixture."""

from collections.abc import Mapping

import pandas as pd

from qatoolkit.curate.diversity import diversity as compared
from qatoolkit.curate.near_duplicates import near_duplicates
from qatoolkit.run.profiles import SEEDS
from qatoolkit.run.store import Run


def curated_sets(run: Run) -> dict[str, pd.DataFrame]:
    """The curated data sets that an arm reads, by name, the seeds first."""
    stored = run.read("curate")
    return {name: getattr(stored, name) for name in run.profile.used_sets if name in stored}


def removals(run: Run) -> pd.DataFrame:
    """Rows of each data set that were accepted, and rejected by reason: source, rows_in, reason, count, as
    `figures.seed_quality` draws them."""
    report = run.read("curate").report
    if report.empty:
        return pd.DataFrame(columns=["source", "rows_in", "reason", "count"])
    report = report[report["outcome"] != "flagged"].rename(columns={"dataset": "source"})
    report = report.assign(reason=report["reason"].where(report["outcome"] == "rejected", "accepted"))
    counts = report.groupby(["source", "reason"], sort=False)["rows"].sum().rename("count").reset_index()
    return counts.assign(rows_in=counts.groupby("source")["count"].transform("sum"))[
        ["source", "rows_in", "reason", "count"]
    ]


def removed_questions(run: Run, name: str, each: int = 2, seed: int = 0) -> pd.DataFrame:
    """At most `each` rejected questions for every reason, the most frequent reason first: reason, question, answer,
    detail."""
    rejects = getattr(run.read("curate"), f"{name}_rejects")
    order = {reason: place for place, reason in enumerate(rejects["reason"].value_counts().index)}
    some = rejects.sample(frac=1, random_state=seed).groupby("reason").head(each)
    some = some.sort_values("reason", key=lambda reasons: reasons.map(order), kind="stable", ignore_index=True)
    return some[["reason", "question", "answer", "detail"]]


def near_pairs(run: Run, n: int = 3) -> pd.DataFrame:
    """Pairs of similar questions with their outcome: near-duplicates, merged into the question that was kept, and the
    most similar pairs of kept questions, which differ in a number, a name, a sign or the answer. At most `n` of each in
    every data set: set, outcome, first, second, first answer, second answer."""
    stored, settings, rows = run.read("curate"), run.profile.curate, []
    for name, kept in curated_sets(run).items():
        first, lost = kept.set_index("id"), getattr(stored, f"{name}_rejects")
        lost = lost[lost["reason"] == "near_duplicate"]
        lost = lost.assign(kept=lost["detail"].str.extract(r"^of (\S+),")[0])
        pairs = [
            ("merged", first.loc[row["kept"]], row)
            for row in lost[lost["kept"].isin(first.index)][:n].to_dict("records")
        ]
        found = near_duplicates(kept, threshold=0.8, on=settings.on[:1], n=settings.shingle)
        heads = found[found["keep"]].set_index("cluster")["id"]
        for row in found[~found["keep"]].nlargest(n, "similarity").itertuples():
            pairs.append(("kept apart", first.loc[heads[row.cluster]], first.loc[row.id]))
        rows += [(name, what, a["question"], b["question"], a["answer"], b["answer"]) for what, a, b in pairs]
    return pd.DataFrame(rows, columns=["set", "outcome", "first", "second", "first answer", "second answer"])


def diversity(run: Run) -> pd.DataFrame:
    """How diverse the curated seeds and data sets are, at equal size (`curate.diversity`), controls (data sets with
    dials) included. A set whose questions name no knowledge points has no `kp_coverage`."""
    sets = curated_sets(run)
    table = compared(sets, seeds=SEEDS, seed=run.seed)
    named = ["knowledge_points" in sets[s] and sets[s]["knowledge_points"].notna().any() for s in table["set"]]
    return table.assign(kp_coverage=table["kp_coverage"].where(named))


def mixture(run: Run, ratios: Mapping[str, float] | None = None, max_epochs: float | None = None) -> pd.DataFrame:
    """What the arms read of each data set, or what an arm with these ratios and limit of epochs would read: arm, set,
    requested and realised share of the QA tokens, tokens, epochs. Sets that an arm joins without ratios are one row.

    ValueError if the sets can't supply that many tokens (`training.packing.Parts`), or for a set that was not
    curated."""
    from qatoolkit.run.stages.training import mixture_of, qa_of  # loads torch
    from qatoolkit.training.mixtures import open_qa
    from qatoolkit.training.packing import mix

    profile, sets, rows = run.profile, curated_sets(run), []
    if ratios:
        if unknown := set(ratios) - set(sets):
            raise ValueError(f"mixture: no curated set {min(unknown)!r}; there are {', '.join(sets)}")
        places = {"mixed": mixture_of(run, {name: sets[name] for name in ratios}, ratios, max_epochs)}
    else:
        places = {arm: place for arm in profile.arms if (place := qa_of(run, arm))}
    tokens = round(profile.midtrain.tokens * (1 - profile.midtrain.replay))
    for arm, place in places.items():
        report = mix(open_qa(place, profile.student.block or 1024), None, tokens, 0.0, run.seed).report
        whole = {"set": " + ".join(profile.arms.get(arm, ())), "requested": 1.0, "realised": 1.0}
        parts = report.get("parts", [whole | {"tokens": report["qa"], "epochs": report["epochs"]}])
        rows += [{"arm": arm} | part for part in parts]
    table = pd.DataFrame(rows, columns=["arm", "set", "requested", "realised", "tokens", "epochs"])
    return table.rename(columns={"requested": "requested share", "realised": "realised share"})
