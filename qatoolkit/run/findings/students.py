"""Findings about models: the probe, mid-training, the exams, scaling, ablations, rounds and attribution."""

import pandas as pd

from qatoolkit.core.taxonomy import HIGH, STEM
from qatoolkit.evaluation.probe import UNLABELLED
from qatoolkit.figures.style import AXES, arm_name, dial_name, short_count, signed
from qatoolkit.run.findings.phrases import (
    WHERE,
    by_reason,
    in_each,
    meaning,
    percent,
    points,
    right,
    unpaired,
    without_repeats,
)
from qatoolkit.run.store import Run
from qatoolkit.run.tables.evaluation import arm_scores, training_seeds
from qatoolkit.run.tables.measured import difficulty_agreement, pass_rates_by_level

REPEATED = 4  # readings of a text up to which new text is hardly better (Muennighoff et al., arXiv 2305.16264)
SPAN = 2  # the least ratio of an axis's ends that a change per tenfold is told from
BEYOND = "a slope of more than 100 points is beyond what a factor of {} can show"
FEW = 20  # questions; an interval over fewer says little about what can be seen
READERS = {
    "training": "the answer most common in its data",
    "model": "the model without the question",
    "position": "the position most often right in its data",
}
FORMS = {"choices": "questions with choices", "open": "open questions"}


def probe(run: Run):
    samples = run.read("probe").samples
    guess = f"; guessing would answer {percent(samples['chance'].mean())}" if "chance" in samples else ""
    yield f"The base student answers {right(samples)} of the probe's questions{guess}."
    known = {column: samples[samples[column] != UNLABELLED] for column in ("discipline", "difficulty")}
    parts = {"discipline": ("STEM", "the other disciplines", STEM), "difficulty": ("H4 and H5", "H1 to H3", HIGH)}
    for column, (inside, outside, values) in parts.items():
        a, b = _split(known[column], column, values)
        if len(a) and len(b):
            difference = unpaired(a, b)
            says = meaning(difference, f"stronger at {inside}", f"weaker at {inside}")
            yield (
                f"{inside}: {right(a)}; {outside}: {right(b)}. The difference is {points(difference)}, unpaired: {says}."
            )
    labelled = known["discipline"][known["discipline"]["difficulty"] != UNLABELLED]
    fields = [_split(part, "difficulty", HIGH) for part in _split(labelled, "discipline", STEM)]
    if all(len(level) for levels in fields for level in levels):
        stem, elsewhere = (points(unpaired(*levels)) for levels in fields)
        yield f"H4 and H5 less H1 to H3, within STEM: {stem}; within the other disciplines: {elsewhere}."


def _split(samples: pd.DataFrame, column: str, values) -> tuple[pd.DataFrame, pd.DataFrame]:
    inside = samples[column].isin(values)
    return samples[inside], samples[~inside]


def pass_rates(run: Run):
    readings = [f"higher levels are passed {way} often on average" for way in ("more", "less")]
    by_level = pass_rates_by_level(run)
    for row in difficulty_agreement(run).query("on == 'all'").itertuples():
        about = f"{row.model.capitalize()}, {FORMS[row.form]}"
        if pd.isna(row.correlation):
            yield f"{about}: level and pass rate can't be compared, since one of them does not vary."
            continue
        rates = by_level[(by_level["model"] == row.model) & (by_level["form"] == row.form)]
        listed = ", ".join(f"{level} {percent(rate)}" for level, rate in rates[["difficulty", "pass_rate"]].to_numpy())
        in_order = "" if rates["pass_rate"].is_monotonic_decreasing else ", not in the order of the levels"
        yield (
            f"{about}: level of difficulty and pass rate have a rank correlation of {signed(row.correlation, 2)} "
            f"({signed(row.low, 2)} to {signed(row.high, 2)}, n {row.n:,}): "
            f"{meaning({'low': row.low, 'high': row.high}, *readings)}. By level: {listed}{in_order}."
        )


def midtrain(run: Run):
    mixed = run.read("midtrain").mixtures
    tokens = (mixed["qa"] + mixed["general"]).median()
    read = [f"{arm_name(row.arm)} {row.epochs:.1f} times" for row in mixed.itertuples() if row.qa]
    often = f"; their questions were read: {', '.join(read)}" if read else ""
    yield f"Each of {len(mixed)} arms read {short_count(tokens)} tokens from the same base{often}."
    yield from empty_arms(run).values()
    if (repeated := mixed[mixed["general_epochs"] > REPEATED]["general_epochs"].sort_values(ascending=False)).size:
        listed = ", ".join(f"{arm_name(mixed['arm'][i])} {times:,.0f} times" for i, times in repeated.items())
        yield (
            f"General text was read up to {repeated.iloc[0]:,.0f} times: {listed}. A comparison with it is then one "
            "with memorised text; give the world more general text, or train on fewer tokens."
        )


def empty_arms(run: Run) -> dict[str, str]:
    """A sentence for each arm that has data sets but no question left after curation, by arm."""
    said, report = {}, run.read("curate").report
    for row in run.read("midtrain").mixtures.itertuples():
        sets = list(run.profile.arms.get(row.arm, ()))
        if row.documents or not sets:
            continue
        lost = report[report["dataset"].isin(sets) & report["outcome"].eq("rejected")] if len(report) else report
        why = f": all {lost['rows'].sum():,} were removed ({by_reason(lost, 'rows')})" if len(lost) else ""
        said[row.arm] = (
            f"{arm_name(row.arm)} has no questions left{why}; it read general text only, as the general control, so "
            "it is not ranked or compared."
        )
    return said


def evaluate(run: Run):
    stored, empty = run.read("evaluate"), empty_arms(run)
    table = stored.comparisons.dropna(subset="difference") if len(stored.comparisons) else pd.DataFrame()
    main, ranked = run.profile.main_arm, arm_scores(run)
    ranked = ranked[~ranked["arm"].isin(empty)]
    yield from empty.values()
    beyond = without_repeats(stored.over_blind)
    all_weak = len(beyond) < len(stored.over_blind)
    if all_weak:
        yield "All questions are in weak cells, so what is said over all is said of these."
    for on in ("all",) if all_weak else ("weak", "all"):
        order = ranked.dropna(subset=f"{on} accuracy").sort_values(f"{on} accuracy", ascending=False, kind="stable")
        if order.empty:
            continue
        listed = ", ".join(
            f"{arm_name(arm)} {percent(rate)}" for arm, rate in order[["arm", f"{on} accuracy"]].to_numpy()
        )
        guessing = stored.over_blind.loc[stored.over_blind["on"] == on, "guessing"]
        guess = f"; guessing {percent(guessing.iloc[0])}" if len(guessing) else ""
        yield f"Accuracy {WHERE[on]}, the best first: {listed}{guess}."
    for (a, b), rows in table.groupby(["a", "b"], sort=False) if len(table) else ():
        if not {a, b} & set(empty):
            yield f"{arm_name(a)} compared with {arm_name(b)}: {in_each(without_repeats(rows))}."
    if main in empty:
        return
    beyond = beyond[beyond["arm"] == main].sort_values("on", ascending=False)  # weak cells first
    for row in beyond.head(1).to_dict("records"):
        says = meaning(row, "more than can be had without the question", "less than without the question")
        yield (
            f"{arm_name(main)} {WHERE[row['on']]} compared with its best blind reader, {READERS[row['reader']]} "
            f"({percent(row['blind'])}): {points(row)} ({says})."
        )
    unread = stored.gains_by_blind
    unread = unread[(unread["a"] == main) & (unread["blind"] == "wrong") & ~unread["b"].isin(empty)]
    unread = unread.dropna(subset="difference")
    if len(unread):
        each = ", ".join(
            f"{points(row)} over {arm_name(row['b'])} ({meaning(row)})" for row in unread.to_dict("records")
        )
        yield (
            f"Where the answer most common in its data is wrong (weak cells), the difference of {arm_name(main)} is "
            f"{each}. Only a gain there can't come from choosing the most common answer; it could still come from what "
            "the other blind readers know."
        )
    for row in stored.general[stored.general["arm"] == main].dropna(subset="difference").to_dict("records"):
        ends = f"{signed(row['low'], 3)} to {signed(row['high'], 3)}, {row['documents']:,} documents"
        yield (
            f"Bits per byte on held-out general text, {arm_name(main)} compared with the base: "
            f"{signed(row['difference'], 3)} ({ends if row['documents'] > 1 else '1 document'}); lower is better."
        )


def scaling(run: Run):
    stored, main = run.read("scaling"), run.profile.main_arm
    if said := empty_arms(run).get(main):
        yield said
        return
    for axis, rows in stored.points.dropna(subset="gain").groupby("axis", sort=False):
        (label, unit, write), gains = AXES[axis], []
        for row in rows.sort_values("x").iloc[[0, -1]].to_dict("records"):
            gain = {"difference": row["gain"], "low": row["gain_low"], "high": row["gain_high"], "n": row["n"]}
            gains.append(f"{points(gain)} at {write(row['x'])} {unit}")
        arm, over = arm_name(row["arm"]), arm_name(row["over"])
        yield f"{label.capitalize()}: {arm} compared with {over} {' and '.join(gains)}, paired."
    for row in stored.gains.to_dict("records"):
        x = stored.points.loc[stored.points["axis"].eq(row["axis"]) & stored.points["gain"].notna(), "x"]
        if (span := round(x.max() / x.min(), 1)) < SPAN or abs(row["slope"]) > 1:
            spans = "the axis spans only a factor of {}" if span < SPAN else BEYOND
            yield f"{AXES[row['axis']][0].capitalize()}: {spans.format(f'{span:.1f}')}: no slope of the gain is given."
            continue
        slope, low, high = (signed(100 * row[name], 1) for name in ("slope", "low", "high"))
        says = {"grows": "a gain that grows", "shrinks": "a gain that shrinks"}.get(row["says"], "no clear change")
        yield (
            f"Per tenfold {AXES[row['axis']][0]} that gain changes by {slope} points ({low} to {high}, "
            f"{row['n']} points on the axis): {says}."
        )
    checks = stored.checks[stored.checks["arm"] == main] if len(stored.checks) else stored.checks
    for row in checks.to_dict("records"):
        forecast, low, high = (100 * row[name] for name in ("forecast_accuracy", "low", "high"))
        yield (
            f"{AXES[row['axis']][0].capitalize()}: from the {row['points']} smaller points, {arm_name(row['arm'])} at the largest "
            f"was forecast at {forecast:.1f}% ({low:.1f} to {high:.1f}); {percent(row['measured_accuracy'])} was "
            f"measured, {'inside' if row['covered'] else 'outside'} the interval, and "
            f"{percent(row['repeated_accuracy'])} at the point before."
        )


def ablations(run: Run):
    table, profile = run.read("ablations").ablations, run.profile
    tokens = short_count(round(profile.midtrain.tokens * profile.ablation_tokens))
    if len(table):
        yield f"Ablated arms were trained again, on {tokens} tokens, {percent(profile.ablation_tokens)} of mid-training."
    for on, rows in without_repeats(table.dropna(subset="difference")).groupby("on", sort=False):
        clear, seeds = rows[rows["p_holm"] < 0.05], rows["seeds"].max()
        listed = "; ".join(f"{dial_name(row['ablation'])} {points(row)}" for row in clear.to_dict("records"))
        half = 100 * (rows["high"] - rows["low"]).median() / 2
        unseen = f"; effects below {half:.{int(half < 1)}f} points at least are not seen"
        unseen = unseen if half >= 0.05 and rows["n"].max() >= FEW else ""
        yield (
            f"Changed settings that move the accuracy {WHERE[on]} (Holm-corrected p below 0.05): {listed or 'none'}. "
            f"{len(rows) - len(clear)} of {len(rows)} make no clear difference with n {rows['n'].max():,.0f}"
            f"{f' over {seeds} training seeds' if seeds > 1 else ''}{unseen}."
        )
    seeds = training_seeds(run).dropna(subset="difference")
    for row in without_repeats(seeds[seeds["interval"].eq("both")]).to_dict("records"):
        yield (
            f"At this size {arm_name(profile.main_arm)} compared with {arm_name(profile.control)}, over training seeds "
            f"({row['seed']}): {points(row)} {WHERE[row['on']]} ({meaning(row)}); the interval is over seeds and questions."
        )


def rounds(run: Run):
    stored = run.read("rounds")
    table, made = stored.comparisons, stored.rounds
    for b, rows in table[table["a"] == "rounds"].dropna(subset="difference").groupby("b", sort=False):
        over = "one pass of as many tokens and questions" if b == "one_pass" else b.replace("_", " ")
        rows = without_repeats(rows)
        rows = rows.assign(key=rows["on"].map({"weak": 0, "all": 1})).dropna(subset="key").sort_values("key")
        seeds = int(rows["seeds"].max())
        over += f", over {seeds} training seeds" if seeds > 1 else ""
        yield f"{made['round'].max()} rounds compared with {over}: {in_each(rows)}."
    for seed, rows in made.groupby("seed"):
        gained = rows.dropna(subset="gain")[["gain", "gain_low", "gain_high", "n"]]
        gains = map(points, gained.set_axis(["difference", "low", "high", "n"], axis=1).to_dict("records"))
        weak = f"{rows['weak_cells'].iloc[0]} cells were weak before and {rows['weak_cells'].iloc[-1]} after"
        why = rows["stopped"].iloc[0]
        yield f"Seed {seed}: gains on the probe's questions by round {'; '.join(gains)}. {weak}; {why}."


def attribution(run: Run, name: str):
    stored = run.read(name)
    about, parts, table = stored.about, stored.parts, stored.matrix
    trained, cells = parts[parts["reason"].isna()], table[(table["on"] != "all") & table["p"].notna()]
    over = "the whole arm" if about["how"] == "without" else "general text alone"
    yield (
        f"{len(trained)} of {len(parts)} parts of {arm_name(about['arm'])} by {about['by']}, {percent(trained['share'].sum())} "
        f"of its questions, were trained {about['how']}{' them' if about['how'] == 'without' else ''} and compared "
        f"with {over}: {about['tokens']:,} tokens, {about['seeds']} training seed{'s' * (about['seeds'] > 1)}."
    )
    if len(cells):
        clear = cells[(cells["low"] > 0) | (cells["high"] < 0)]
        yield (
            f"Of {len(cells)} pairs of part and exam cell with enough questions, {len(clear)} have an interval that "
            f"excludes 0 ({0.05 * len(cells):.0f} expected by chance), and {int((cells['p_holm'] < 0.05).sum())} are "
            "significant after Holm's correction."
        )
    rows = stored.contrast.set_index("of").to_dict("index") if len(stored.contrast) else {}
    if rows:
        difference = rows["own minus others"]
        says = meaning(difference, "a part moves its own cells more", "a part moves its own cells less")
        yield (
            f"Questions of a part's own exam cell gain {points(rows['own part'])} from it and "
            f"{points(rows['other parts'])} from another part on average; the difference is {points(difference)}: "
            f"{says}."
        )
