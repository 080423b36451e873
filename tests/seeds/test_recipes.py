r"""Data sets as the hub has them: the columns are those that their cards and lm-eval's tasks name, the rows are our own.

A recipe is the rows, what becomes of each (the answer, or "!" and the reason of the reject), and what is known of the
first row: number of choices, question, aliases, rationale."""

import pandas as pd
import pytest

from qatoolkit.seeds.read import layout_report, read_seeds

FOUR = ["copper", "oak", "cotton", "wool"]
METAL = "Which of these is a metal?"
PLANT = "Which of these is a tree?"
PASSAGE = "Ann has a red hat. Bob has a blue one."
RED = "Which colour is Ann's hat?"
WOOD = {"text": FOUR, "label": ["A", "B", "C", "D"]}


def recipe(columns, rows, expected, **first):
    return [dict(zip(columns.split(", "), row, strict=True)) for row in rows], expected, first


RECIPES = {
    "cmexam": recipe(
        "Question, Options, Answer",
        [
            ("哪一种是金属？", "A 铜\nB 橡木\nC 棉花\nD 羊毛", "A"),
            ("哪一种是木材？", "A 铜\nB 橡木\nC 棉花\nD 羊毛", "B"),
        ],
        ["铜", "橡木"],
        choices=4,
    ),
    "cmb": recipe(
        "exam_type, question, answer, question_type, option",
        [
            ("own", METAL, "A", "single", {"A": "copper", "B": "oak", "C": "", "D": ""}),
            ("own", "Which of these grow?", "BC", "several", dict(zip("ABCD", FOUR, strict=True))),
        ],
        ["copper", "BC"],
        choices=2,
    ),
    "chat, as sharegpt": recipe(
        "conversations",
        [
            (
                [
                    {"from": "system", "value": "Be brief."},
                    {"from": "human", "value": METAL},
                    {"from": "gpt", "value": "copper"},
                ],
            ),
            ([{"from": "human", "value": PLANT}, {"from": "gpt", "value": "oak"}],),
            (
                [
                    {"from": "human", "value": "Hello?"},
                    {"from": "gpt", "value": "Yes?"},
                    {"from": "human", "value": PLANT},
                    {"from": "gpt", "value": "oak"},
                ],
            ),
        ],
        ["copper", "oak", "!empty_question"],
        question=METAL,
    ),
    "chat, as messages": recipe(
        "messages",
        [
            ([{"role": "user", "content": METAL}, {"role": "assistant", "content": "copper"}],),
            ([{"role": "user", "content": PLANT}, {"role": "assistant", "content": "oak"}],),
        ],
        ["copper", "oak"],
        question=METAL,
    ),
    "options in columns from 1": recipe(
        "question, option1, option2, option3, option4, answer",
        [(METAL, *FOUR, 1), ("Which of these is spun from a plant?", *FOUR, 3)],
        ["copper", "cotton"],
        choices=4,
    ),
    "bbq": recipe(
        "context, question, ans0, ans1, ans2, label",
        [
            (PASSAGE, "Who has the red hat?", "Ann", "Bob", "Unknown", 0),
            (PASSAGE, "Who has a dog?", "Ann", "Bob", "Unknown", 2),
        ],
        ["Ann", "Unknown"],
        choices=3,
    ),
    "options with semicolons": recipe(
        "question, options, answer",
        [(METAL, "copper; oak; cotton; wool", "copper"), (PLANT, "copper; oak; cotton; wool", "oak")],
        ["copper", "oak"],
        choices=4,
    ),
    "ape210k": recipe(
        "id, original_text, equation, ans",
        [("1", "小明有3个苹果，又买2个，共几个？", "x=3+2", "5"), ("2", "甲有9本书，丢1本，剩几本？", "x=9-1", "8")],
        ["5", "8"],
        source_id="1",
    ),
    "cmath": recipe("question, golden, grade", [("3 + 2 = ?", "5", 1), ("3 + 9 = ?", "12", 2)], ["5", "12"], level="1"),
    "metamath": recipe(
        "query, response, type, original_question",
        [
            ("3 + 2 = ?", "Add.\n#### 5\nThe answer is: 5", "own", "3 + 2"),
            ("4 + 5 = ?", "#### 9\nThe answer is: 9", "own", "4"),
        ],
        ["5", "9"],
        rationale="Add.",
    ),
    "q and a": recipe("q, a", [(METAL, "copper"), (PLANT, "oak")], ["copper", "oak"], question=METAL),
    "q and lettered options": recipe(
        "q, a, b, c, d, answer", [(METAL, *FOUR, "a"), (PLANT, *FOUR, "b")], ["copper", "oak"], choices=4
    ),
    "mmlu": recipe(
        "question, subject, choices, answer",
        [(METAL, "materials", FOUR, 0), (PLANT, "materials", FOUR, 1)],
        ["copper", "oak"],
        choices=4,
        subject="materials",
    ),
    "mmlu_pro": recipe(
        "question_id, question, options, answer, answer_index, cot_content, category, src",
        [
            (1, METAL, ["copper", "oak", "cotton", "wool", "silk"], "A", 0, "Copper conducts.", "engineering", "own"),
            (2, PLANT, FOUR, "B", 1, "", None, None),
        ],
        ["copper", "oak"],
        choices=5,
        rationale="Copper conducts.",
        subject="engineering",
    ),
    "mmlu_redux": recipe(
        "question, choices, answer, error_type, correct_answer",
        [(METAL, FOUR, 0, "ok", None), (PLANT, FOUR, 1, "ok", None), ("Which is spun?", FOUR, 3, "wrong", "2")],
        ["copper", "oak", "wool"],
        choices=4,
        unused="correct_answer",
    ),
    "ai2_arc": recipe(
        "id, question, choices, answerKey",
        [("a1", METAL, WOOD, "A"), ("a2", PLANT, {"text": FOUR, "label": ["1", "2", "3", "4"]}, "2")],
        ["copper", "oak"],
        choices=4,
        source_id="a1",
    ),
    "arc as its own files": recipe(
        "id, answerKey, question",
        [
            (
                "a1",
                "A",
                {"stem": METAL, "choices": [{"text": t, "label": c} for t, c in zip(FOUR, "ABCD", strict=True)]},
            ),
            (
                "a1",
                "B",
                {"stem": PLANT, "choices": [{"text": t, "label": c} for t, c in zip(FOUR, "ABCD", strict=True)]},
            ),
        ],
        ["copper", "oak"],
        choices=4,
        question=METAL,
    ),
    "openbookqa": recipe(
        "id, question_stem, choices, answerKey, fact1",
        [("o1", METAL, WOOD, "A", "metals conduct"), ("o2", PLANT, WOOD, "B", "trees have wood")],
        ["copper", "oak"],
        choices=4,
    ),
    "commonsense_qa": recipe(
        "id, question, question_concept, choices, answerKey",
        [("c1", METAL, "metal", WOOD, "A"), ("c2", PLANT, "tree", WOOD, "")],
        ["copper", "!empty_answer"],
        choices=4,
        question=METAL,
    ),
    "hellaswag": recipe(
        "ind, activity_label, ctx_a, ctx_b, ctx, endings, source_id, label",
        [
            (
                0,
                "Cooking",
                "He boils water.",
                "then he",
                "He boils water. then he",
                ["adds rice.", "swims off.", "paints it.", "sells the sea."],
                "x",
                "0",
            ),
            (
                1,
                "Cooking",
                "He boils water.",
                "then he",
                "He has a pot. then he",
                ["adds rice.", "swims off.", "paints it.", "sells the sea."],
                "x",
                "",
            ),
        ],
        ["adds rice.", "!empty_answer"],
        choices=4,
        question="He boils water. then he",
    ),
    "piqa": recipe(
        "goal, sol1, sol2, label",
        [
            ("Open a jar", "Twist the lid.", "Twist the label.", 0),
            ("Dry a cup", "Wet it.", "Wipe it.", 1),
            ("Cut bread", "Use a saw blade knife.", "Use a spoon.", -1),
        ],
        ["Twist the lid.", "Wipe it.", "!withheld"],
        choices=2,
        question="Open a jar",
    ),
    "social_i_qa": recipe(
        "context, question, answerA, answerB, answerC, label",
        [
            ("Kim lent Lee a pen.", "How is Lee?", "glad", "cross", "old", "1"),
            ("Kim lent Lee a pen.", "How is Lee?", "ill", "thankful", "old", "2"),
        ],
        ["glad", "thankful"],
        choices=3,
        question="Kim lent Lee a pen.\n\nHow is Lee?",
    ),
    "winogrande": recipe(
        "sentence, option1, option2, answer",
        [
            ("The cup fit in the box because the _ was small.", "cup", "box", "1"),
            ("The cup fit in the box because the _ was large.", "cup", "box", "1"),
            ("The cup fit in the box because the _ was hidden.", "cup", "box", ""),
        ],
        ["cup", "cup", "!empty_answer"],
        choices=2,
        question="The cup fit in the box because the _ was small.",
    ),
    "copa": recipe(
        "premise, choice1, choice2, question, label",
        [
            ("The cup broke.", "It fell.", "It sang.", "cause", 0),
            ("It rained.", "It was dry.", "It was wet.", "effect", 1),
        ],
        ["It fell.", "It was wet."],
        choices=2,
        question="The cup broke.\n\ncause",
    ),
    "swag": recipe(
        "video-id, fold-ind, startphrase, sent1, sent2, label, ending0, ending1, ending2, ending3, gold-source",
        [
            ("v", "1", "She sits. She", "She sits.", "She", 0, "reads.", "melts.", "rains.", "rusts.", "gold"),
            ("v", "1", "He sits. He", "She sits.", "She", 2, "reads.", "melts.", "rains.", "rusts.", "gold"),
        ],
        ["reads.", "rains."],
        choices=4,
        question="She sits. She",
    ),
    "boolq": recipe(
        "question, answer, passage",
        [("does ann have a hat", True, PASSAGE), ("does bob have a red hat", False, PASSAGE)],
        ["true", "false"],
        question=f"{PASSAGE}\n\ndoes ann have a hat",
    ),
    "strategyqa": recipe(
        "qid, term, question, answer, facts",
        [
            ("s1", "Oak", "Can an oak float?", True, ["Wood floats."]),
            ("s2", "Iron", "Can iron float?", False, ["Iron sinks.", "It is dense."]),
        ],
        ["true", "false"],
        rationale="Wood floats.",
    ),
    "sciq": recipe(
        "question, distractor3, distractor1, distractor2, correct_answer, support",
        [
            (METAL, "wool", "oak", "cotton", "copper", "Copper is a metal."),
            (PLANT, "wool", "copper", "cotton", "oak", ""),
        ],
        ["copper", "oak"],
        choices=4,
        rationale="Copper is a metal.",
    ),
    "gpqa": recipe(
        "Pre-Revision Question, Pre-Revision Correct Answer, Question, Subdomain, Correct Answer, Incorrect Answer 1, Incorrect Answer 2, Incorrect Answer 3, Explanation",
        [
            ("old", "old", METAL, "x", "copper", "oak", "cotton", "wool", "Copper conducts."),
            (None, None, PLANT, None, "oak", "copper", "wool", "silk", None),
        ],
        ["copper", "oak"],
        choices=4,
        question=METAL,
        rationale="Copper conducts.",
        unused="Pre-Revision Correct Answer",
    ),
    "opentdb": recipe(
        "type, difficulty, category, question, correct_answer, incorrect_answers",
        [
            ("multiple", "easy", "Science", METAL, "copper", ["oak", "cotton", "wool"]),
            ("boolean", "easy", "Science", "An oak is a tree.", "True", ["False"]),
        ],
        ["copper", "True"],
        choices=4,
        subject="Science",
        level="easy",
    ),
    "truthful_qa generation": recipe(
        "type, category, question, best_answer, correct_answers, incorrect_answers, source",
        [
            (
                "Adversarial",
                "Health",
                "What does a fish drink?",
                "Water",
                ["Water", "Sea water"],
                ["Milk", "Nothing"],
                "https://own",
            ),
            ("Adversarial", "Law", "Who owns the moon?", "Nobody", ["Nobody"], ["A king"], "https://own"),
        ],
        ["Water", "Nobody"],
        choices=3,
        aliases=["Sea water"],
    ),
    "truthful_qa multiple_choice": recipe(
        "question, mc1_targets, mc2_targets",
        [
            (
                "What does a fish drink?",
                {"choices": ["Water", "Milk"], "labels": [1, 0]},
                {"choices": ["Water", "Sea water", "Milk"], "labels": [1, 1, 0]},
            ),
            (
                "Who owns the moon?",
                {"choices": ["A king", "Nobody"], "labels": [0, 1]},
                {"choices": ["A king", "Nobody", "All"], "labels": [0, 1, 1]},
            ),
        ],
        ["Water", "Nobody"],
        choices=2,
        unused="mc2_targets",
    ),
    "big-bench, target_scores": recipe(
        "input, target_scores",
        [(METAL, {"copper": 1, "oak": 0}), (PLANT, {"oak": 1, "tin": 0})],
        ["copper", "oak"],
        choices=2,
    ),
    "big-bench, hub": recipe(
        "idx, inputs, targets, multiple_choice_targets, multiple_choice_scores",
        [(0, METAL, ["copper"], ["copper", "oak"], [1, 0]), (1, PLANT, ["oak"], ["copper", "oak"], [0, 1])],
        ["copper", "oak"],
        choices=2,
        question=METAL,
    ),
    "bbh": recipe(
        "input, target",
        [("Which of these is a metal?\nOptions:\n(A) copper\n(B) oak", "(A)"), ("not ( True ) is", "False")],
        ["copper", "False"],
        choices=2,
    ),
    "gsm8k": recipe(
        "question, answer",
        [("2 bags of 3 nuts?", "2 * 3 = <<2*3=6>>6\n#### 6"), ("1,000 nuts and 200?", "Add them.\n#### 1,200")],
        ["6", "1,200"],
        rationale="2 * 3 = <<2*3=6>>6",
    ),
    "math": recipe(
        "problem, level, type, solution",
        [
            ("Half of 1?", "Level 1", "Algebra", r"It is $\boxed{\frac{1}{2}}$."),
            ("3 - 1?", "Level 1", "Algebra", r"So $\boxed 2$."),
        ],
        [r"\frac{1}{2}", "2"],
        rationale=r"It is $\boxed{\frac{1}{2}}$.",
        level="Level 1",
        subject="Algebra",
    ),
    "math-500": recipe(
        "problem, solution, answer, unique_id",
        [
            ("Half of 1?", r"It is $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}", "u"),
            ("3 - 1?", r"So $\boxed{2}$.", "2", "v"),
        ],
        [r"\frac{1}{2}", "2"],
        rationale=r"It is $\boxed{\frac{1}{2}}$.",
    ),
    "svamp": recipe(
        "ID, Body, Question, Answer, Type",
        [
            ("s1", "Ann has 3 nuts.", "How many are left after 1?", 2.0, "Sub"),
            ("s2", "Bob has 3 nuts.", "How many are left after 2?", 1.0, "Sub"),
        ],
        ["2.0", "1.0"],
        question="Ann has 3 nuts.\n\nHow many are left after 1?",
    ),
    "math_qa": recipe(
        "Problem, Rationale, options, correct, annotated_formula, linear_formula, category",
        [
            ("2 + 2 = ?", "add", "a ) 3 , b ) 4 , c ) 5 , d ) 6 , e ) 7", "b", "add(2,2)", "add(n0,n0)|", "general"),
            ("2 + 3 = ?", "add", "a ) 3 , b ) 4 , c ) 5 , d ) 6 , e ) 7", "c", "add(2,3)", "add(n0,n1)|", "general"),
        ],
        ["4", "5"],
        choices=5,
        rationale="add",
    ),
    "aqua_rat": recipe(
        "question, options, rationale, correct",
        [("2 + 2 = ?", ["A)3", "B)4", "C)5"], "add", "B"), ("2 + 3 = ?", ["A)3", "B)4", "C)5"], "add", "C")],
        ["4", "5"],
        choices=3,
    ),
    "theoremqa": recipe(
        "Question, Answer, Answer_type, Picture",
        [("Is 2 prime?", "True", "bool", None), ("Roots of x^2 - 3x + 2?", "[1, 2]", "list of integer", None)],
        ["True", "[1, 2]"],
        question="Is 2 prime?",
    ),
    "scibench": recipe(
        "problem_text, answer_latex, answer_number, unit, source",
        [
            ("How long?", " 2.5", "2.5", "nm", "own"),
            ("How heavy?", r" 3.1 \times 10^{4}", "3.1", r" $10^4 \mathrm{~kg}$", "own"),
            ("How warm?", "-7", "-7", "", "own"),
            ("How far?", r"3 \times 10^{4}", "3", "$10^5$ m", None),
        ],
        ["2.5 nm", r"3.1 \times 10^{4} $\mathrm{~kg}$", "-7", "!unclear_number"],
        question="How long?",
    ),
    "olympiadbench": recipe(
        "id, question, solution, final_answer, context, unit, answer_type, is_multiple_answer, language",
        [
            (1, "How fast?", ["Divide.", "So 5."], ["5"], None, "m/s", "Numerical", False, "English"),
            (2, "Roots?", ["Factor."], ["$1$", "$2$"], None, None, "Numerical", True, "English"),
        ],
        ["5 m/s", "$1$, $2$"],
        rationale="Divide.\nSo 5.",
    ),
    "numinamath": recipe(
        "source, problem, solution, messages",
        [
            ("olympiads", "3 - 1?", r"$\boxed{2}$", [{"role": "user"}]),
            ("amc", "x^2 = 4?", r"$x=\boxed{2}$ or $\boxed{-2}$", []),
            ("amc", "?!x", r"First $\boxed{2}$. Now the rest: $\boxed{3}$", []),
        ],
        ["2", "2, -2", "!unclear_box"],
        question="3 - 1?",
    ),
    "openmathinstruct": recipe(
        "problem, generated_solution, expected_answer, problem_source",
        [("3 - 1?", "Subtract.", "2", "own"), ("3 - 2?", "Subtract.", "1", "own")],
        ["2", "1"],
        rationale="Subtract.",
    ),
    "medqa": recipe(
        "question, answer, options, answer_idx, meta_info, metamap_phrases",
        [
            (METAL, "copper", dict(zip("ABCD", FOUR, strict=True)), "A", "step1", ["metal"]),
            (PLANT, "oak", dict(zip("ABCD", FOUR, strict=True)), "B", None, None),
        ],
        ["copper", "oak"],
        choices=4,
    ),
    "medmcqa": recipe(
        "id, question, cop, choice_type, exp, subject_name, opa, opb, opc, opd, topic_name",
        [
            ("m", METAL, 0, "single", "Why.", "Anatomy", "copper", "oak", "cotton", "wool", "x"),
            ("m", PLANT, 1, "single", "Why.", "Anatomy", "copper", "oak", "cotton", "wool", "x"),
            ("m", "Which is spun?", -1, "single", "Why.", "Anatomy", "copper", "oak", "cotton", "wool", "x"),
        ],
        ["copper", "oak", "!withheld"],
        choices=4,
        rationale="Why.",
        subject="Anatomy",
    ),
    "pubmed_qa": recipe(
        "pubid, question, context, long_answer, final_decision",
        [
            (
                0,
                "Did mice sleep?",
                {"contexts": ["Ten mice.", "All slept."], "labels": ["METHODS", "RESULTS"]},
                "They did.",
                "yes",
            ),
            (
                1,
                "Did mice eat?",
                {"contexts": ["Ten mice.", "All slept."], "labels": ["METHODS", "RESULTS"]},
                "They did.",
                "maybe",
            ),
        ],
        ["yes", "maybe"],
        question="Ten mice.\nAll slept.\n\nDid mice sleep?",
        rationale="They did.",
    ),
    "race": recipe(
        "example_id, article, question, options, answer",
        [("h1", PASSAGE, RED, ["red", "blue"], "A"), ("h1", PASSAGE, "And Bob's?", ["red", "blue"], "B")],
        ["red", "blue"],
        choices=2,
        question=f"{PASSAGE}\n\n{RED}",
    ),
    "reclor": recipe(
        "context, question, answers, label, id_string",
        [
            (PASSAGE, "What follows?", ["Ann has a hat", "Bob has none"], 0, "t"),
            (PASSAGE, "What does not follow?", ["Ann has a hat", "Bob has none"], 1, "t"),
        ],
        ["Ann has a hat", "Bob has none"],
        choices=2,
        question=f"{PASSAGE}\n\nWhat follows?",
    ),
    "logiqa": recipe(
        "context, query, options, correct_option",
        [
            (PASSAGE, "What follows?", ["Ann has a hat", "Bob has none"], 0),
            (PASSAGE, "What does not?", ["Ann has a hat", "Bob has none"], 1),
        ],
        ["Ann has a hat", "Bob has none"],
        choices=2,
        question=f"{PASSAGE}\n\nWhat follows?",
    ),
    "quail": recipe(
        "id, context, question, question_type, answers, correct_answer_id",
        [
            ("q", PASSAGE, RED, "fact", ["red", "blue", "not enough information"], 0),
            ("q", PASSAGE, "And Bob's?", "fact", ["red", "blue", "not enough information"], 1),
        ],
        ["red", "blue"],
        choices=3,
    ),
    "cosmos_qa": recipe(
        "id, context, question, label, answer0, answer1, answer2, answer3",
        [
            ("c", PASSAGE, RED, 0, "red", "blue", "old", "none of the above choices"),
            ("c", PASSAGE, "And Bob's?", 1, "red", "blue", "old", "none of the above choices"),
            ("c", PASSAGE, "Withheld?", -1, "red", "blue", "old", "none of the above choices"),
        ],
        ["red", "blue", "!withheld"],
        choices=4,
        question=f"{PASSAGE}\n\n{RED}",
    ),
    "dream": recipe(
        "dialogue_id, dialogue, question, choice, answer",
        [
            ("d", ["W: My hat is red.", "M: Mine is blue."], "The woman's hat?", ["red", "blue"], "red"),
            ("d", ["W: My hat is red.", "M: Mine is blue."], "The man's hat?", ["red", "blue"], "blue"),
        ],
        ["red", "blue"],
        choices=2,
        question="W: My hat is red.\nM: Mine is blue.\n\nThe woman's hat?",
    ),
    "qasc": recipe(
        "id, question, choices, answerKey, fact1, fact2, combinedfact, formatted_question",
        [
            ("q", METAL, WOOD, "A", "f", "g", "h", "Which of these is a metal? (A) copper (B) oak (C) cotton (D) wool"),
            ("q", PLANT, WOOD, "B", "f", "g", "h", "Which of these is a tree? (A) copper (B) oak (C) cotton (D) wool"),
        ],
        ["copper", "oak"],
        choices=4,
        question=METAL,
    ),
    "qa4mre": recipe(
        "topic_id, document_str, question_str, correct_answer_id, correct_answer_str, answer_options",
        [
            ("1", PASSAGE, RED, "1", "red", {"answer_id": ["1", "2"], "answer_str": ["red", "blue"]}),
            ("1", PASSAGE, "And Bob's?", "2", "blue", {"answer_id": ["1", "2"], "answer_str": ["red", "blue"]}),
        ],
        ["red", "blue"],
        choices=2,
        question=f"{PASSAGE}\n\n{RED}",
    ),
    "belebele": recipe(
        "link, question_number, flores_passage, question, correct_answer_num, mc_answer1, mc_answer2, mc_answer3, mc_answer4, dialect",
        [
            ("l", 1, PASSAGE, RED, "1", "red", "blue", "grey", "pink", "eng_Latn"),
            ("l", 1, PASSAGE, "And Bob's?", "2", "red", "blue", "grey", "pink", "eng_Latn"),
            ("l", 1, PASSAGE, "Which is grey?", "3", "red", "blue", "grey", "pink", "eng_Latn"),
            ("l", 1, PASSAGE, "Pink?", "4", "red", "blue", "grey", "pink", "eng_Latn"),
        ],
        ["red", "blue", "grey", "pink"],
        choices=4,
        question=f"{PASSAGE}\n\n{RED}",
    ),
    "squad": recipe(
        "id, title, context, question, answers",
        [
            ("s", "Hats", PASSAGE, RED, {"text": ["red", "a red"], "answer_start": [1, 1]}),
            ("s", "Hats", PASSAGE, "And Bob's?", {"text": ["blue"], "answer_start": [1]}),
            ("s", "Hats", PASSAGE, "And Cy's?", {"text": [], "answer_start": []}),
        ],
        ["red", "blue", "!empty_answer"],
        question=f"{PASSAGE}\n\n{RED}",
        aliases=["a red"],
    ),
    "drop": recipe(
        "section_id, query_id, passage, question, answers_spans",
        [
            ("s", "q", PASSAGE, RED, {"spans": ["red"], "types": ["span"]}),
            ("s", "q", PASSAGE, "How many hats?", {"spans": ["2", "2"], "types": ["span", "span"]}),
        ],
        ["red", "2"],
        question=f"{PASSAGE}\n\n{RED}",
    ),
    "drop as its own files": recipe(
        "passage, question, answer",
        [
            (PASSAGE, RED, {"number": "", "spans": ["red"], "date": {"day": ""}, "hit_id": "h"}),
            (PASSAGE, "How many hats?", {"number": "2", "spans": [], "date": {"day": ""}, "hit_id": "h"}),
            (PASSAGE, "Who?", {"number": "", "spans": ["Ann", "Bob"], "date": {"day": ""}, "hit_id": "h"}),
        ],
        ["red", "2", "Ann, Bob"],
        question=f"{PASSAGE}\n\n{RED}",
    ),
    "trivia_qa": recipe(
        "question, question_id, entity_pages, search_results, answer",
        [
            (
                "Whose hat is red?",
                "t",
                {"title": []},
                {"url": []},
                {"aliases": ["Ann", "Annie"], "normalized_aliases": ["ann"], "value": "Ann", "type": "Free"},
            ),
            (
                "Whose hat is blue?",
                "u",
                {"title": []},
                None,
                {"aliases": ["Bob"], "normalized_aliases": ["bob"], "value": "Bob", "type": "Free"},
            ),
        ],
        ["Ann", "Bob"],
        aliases=["Annie"],
    ),
    "nq_open": recipe(
        "question, answer",
        [
            ("whose hat is red", ["Ann", "Annie"]),
            ("how many hats", ["2", "two"]),
            ("what years", ["1912", "1913"]),
            ("whose is blue", ["Bob"]),
        ],
        ["Ann", "2", "1912", "Bob"],
        aliases=["Annie"],
    ),
    "web_questions": recipe(
        "url, question, answers",
        [("u", "who has a hat?", ["Ann", "Bob"]), ("u", "who is Ann?", ["a woman"])],
        ["Ann", "a woman"],
        aliases=["Bob"],
    ),
    "popqa": recipe(
        "id, subj, prop, obj, s_aliases, o_aliases, question, possible_answers",
        [
            (1, "hat", "owner", "Ann", '["cap"]', '["Annie"]', "Whose hat?", '["Ann", "Annie"]'),
            (1, "hat", "owner", "Ann", '["cap"]', '["Annie"]', "Whose blue hat?", '["Bob"]'),
        ],
        ["Ann", "Bob"],
        aliases=["Annie"],
    ),
    "hotpot_qa": recipe(
        "id, question, answer, type, level, supporting_facts, context",
        [
            (
                "h",
                RED,
                "red",
                "bridge",
                "easy",
                {"title": ["Hats"]},
                {"title": ["Hats"], "sentences": [["Ann has a red hat.", "Bob has a blue one."]]},
            ),
            (
                "h",
                "Is Bob's blue?",
                "yes",
                "bridge",
                "easy",
                {"title": ["Hats"]},
                {"title": ["Hats"], "sentences": [["Ann has a red hat.", "Bob has a blue one."]]},
            ),
        ],
        ["red", "yes"],
        question="Ann has a red hat.\nBob has a blue one.\n\nWhich colour is Ann's hat?",
        level="easy",
    ),
    "simpleqa": recipe(
        "metadata, problem, answer",
        [("{'topic': 'Hats'}", "Whose hat is red?", "Ann"), ("{'topic': 'Hats'}", "Whose hat is blue?", "Bob")],
        ["Ann", "Bob"],
    ),
    "ceval": recipe(
        "id, question, answer, explanation, A, B, C, D",
        [
            (0, "下列哪个是金属？", "A", "铜是金属。", "铜", "橡树", "棉", "毛"),
            (1, "下列哪个是树？", "B", "铜是金属。", "铜", "橡树", "棉", "毛"),
            (2, "没有答案？", "", "铜是金属。", "铜", "橡树", "棉", "毛"),
        ],
        ["铜", "橡树", "!empty_answer"],
        choices=4,
        rationale="铜是金属。",
        language="zh",
    ),
    "cmmlu": recipe(
        "Question, Answer, A, B, C, D",
        [("哪个是金属？", "A", "铜", "橡树", "棉", "毛"), ("哪个是树？", "B", "铜", "橡树", "棉", "毛")],
        ["铜", "橡树"],
        choices=4,
        language="zh",
    ),
    "agieval": recipe(
        "passage, question, options, label, answer, other",
        [
            (None, METAL, ["(A)copper", "(B)oak"], "A", None, None),
            (PASSAGE, RED, ["(A)blue", "(B)red"], "B", None, None),
            (None, "3 - 1?", None, None, "2", None),
        ],
        ["copper", "red", "2"],
        choices=2,
        question=METAL,
    ),
    "agieval, hub": recipe(
        "query, choices, gold",
        [
            ("Q: Which of these is a metal?", ["(A)copper", "(B)oak"], [0]),
            ("Q: Which of these is a tree?", ["(A)copper", "(B)oak"], [1]),
        ],
        ["copper", "oak"],
        choices=2,
    ),
    "gaokao-bench": recipe(
        "index, year, category, question, answer, analysis, score",
        [
            (0, "2020", "I", "哪个是金属？A. 铜 B. 木 C. 棉 D. 毛", ["A"], "铜是金属。", 6),
            (1, "2020", "I", "哪些是织物？A. 铜 B. 木 C. 棉 D. 毛", ["C", "D"], "", 6),
        ],
        ["铜", "CD"],
        choices=4,
        rationale="铜是金属。",
    ),
    "tal-scq5k": recipe(
        "queId, problem, answer_value, answer_analysis, difficulty, answer_option_list, knowledge_point_routes",
        [
            (
                "q",
                "1 + 2 = ?",
                "A",
                ["Add.", "So."],
                "1",
                [[{"aoVal": "A", "content": "3 "}], [{"aoVal": "B", "content": "4 "}]],
                ["Numbers->Addition"],
            ),
            (
                "q",
                "2 + 2 = ?",
                "B",
                ["Add.", "So."],
                "1",
                [[{"aoVal": "A", "content": "3 "}], [{"aoVal": "B", "content": "4 "}]],
                ["Numbers->Addition"],
            ),
        ],
        ["3", "4"],
        choices=2,
        rationale="Add.\nSo.",
        level="1",
    ),
    "legalbench": recipe(
        "index, answer, text",
        [("0", "Yes", "Is a hat a garment?"), ("1", "No", "Is a hat a shoe?")],
        ["Yes", "No"],
        question="Is a hat a garment?",
    ),
    "multirc": recipe(
        "paragraph, question, answer, label, idx",
        [(PASSAGE, RED, "red", 1, {"answer": 0}), (PASSAGE, RED, "blue", 0, {"answer": 0})],
        ["red", "!marked_wrong"],
        question=f"{PASSAGE}\n\n{RED}",
    ),
    "medqa, hub": recipe(
        "id, sent1, sent2, label, ending0, ending1, ending2, ending3",
        [
            ("m", METAL, "", 0, "copper", "oak", "cotton", "wool"),
            ("m", PLANT, "", 1, "copper", "oak", "cotton", "wool"),
        ],
        ["copper", "oak"],
        choices=4,
        question=METAL,
    ),
    "scienceqa": recipe(
        "question, choices, answer, hint, lecture, solution, grade",
        [(METAL, FOUR, 0, "", "l", "Copper is.", "grade2"), (PLANT, FOUR, 1, "Look up.", "l", "", "grade2")],
        ["copper", "oak"],
        choices=4,
        rationale="Copper is.",
        level="grade2",
    ),
    "alpaca": recipe(
        "instruction, input, output",
        [("Name the opposite.", "hot", "cold"), ("Name a tree.", "", "oak")],
        ["cold", "oak"],
        question="Name the opposite.\n\nhot",
    ),
    "alpaca, with its formatted text": recipe(
        "instruction, input, output, text",
        [
            (
                "Name the opposite.",
                "hot",
                "cold",
                "### Instruction: Name the opposite. ### Input: hot ### Response: cold",
            ),
            *((f"Name a {t}.", "", t, f"### Instruction: Name a {t}. ### Response: {t}") for t in FOUR),
        ],
        ["cold", *FOUR],
        question="Name the opposite.\n\nhot",
        unused="text",
    ),
    "answers with weights": recipe(
        "question, answers",
        [
            (METAL, [{"text": "oak", "weight": 0}, {"text": "copper", "weight": 100}]),
            (PLANT, [{"text": "oak", "weight": 100}, {"text": "copper", "weight": 0}]),
        ],
        ["copper", "oak"],
        choices=2,
    ),
    "multirc, nested": recipe(
        "question, answers",
        [
            (METAL, [{"text": "oak", "label": 0, "idx": 0}, {"text": "copper", "label": 1, "idx": 1}]),
            (PLANT, [{"text": "oak", "label": 1, "idx": 0}, {"text": "copper", "label": 0, "idx": 1}]),
        ],
        ["copper", "oak"],
        choices=2,
    ),
    "answers marked by words": recipe(
        "question, answers",
        [
            (METAL, [{"answer": "oak", "correct": "N"}, {"answer": "copper", "correct": "Y"}]),
            (PLANT, [{"answer": "oak", "correct": "Y"}, {"answer": "copper", "correct": "N"}]),
        ],
        ["copper", "oak"],
        choices=2,
    ),
    "answers marked by words that are unclear": recipe(
        "question, answers",
        [
            (METAL, [{"text": "oak", "correct": "partly"}, {"text": "copper", "correct": "mostly"}]),
            (PLANT, [{"text": "oak"}]),
        ],
        ["!bad_choices", "oak"],
    ),
    "candidates and their marks": recipe(
        "question, answers, correct",
        [(METAL, FOUR, [True, False, False, False]), (PLANT, FOUR, [False, True, False, False])],
        ["copper", "oak"],
        choices=4,
    ),
    "one-hot labels": recipe(
        "question, choices, label", [(METAL, FOUR[:2], [1, 0]), (PLANT, FOUR[:2], [0, 1])], ["copper", "oak"], choices=2
    ),
    "superglue boolq": recipe(
        "question, passage, idx, label, note",
        [(RED, PASSAGE, 0, 1, "x"), (METAL, PASSAGE, 1, 0, "x")],
        ["!no_answer", "!no_answer"],
    ),
    "musique": recipe(
        "question, answer, answerable", [(METAL, "copper", True), (PLANT, "oak", False)], ["copper", "!unanswerable"]
    ),
    "ms marco": recipe(
        "query, answers", [(METAL, ["Copper."]), (PLANT, ["No Answer Present."])], ["Copper.", "!unanswerable"]
    ),
    "responses marked wrong": recipe(
        "question, response, is_correct", [(METAL, "copper", True), (METAL, "oak", False)], ["copper", "!marked_wrong"]
    ),
    "labels in words": recipe(
        "question, answer, label",
        [(METAL, "copper", "correct"), (METAL, "oak", "incorrect")],
        ["copper", "!marked_wrong"],
    ),
    "an index that contradicts the answer": recipe(
        "question, choices, answer, answer_index",
        [(METAL, FOUR, "copper", 0), (PLANT, FOUR, "oak", 1), ("Which is spun?", FOUR, "cotton", 1)],
        ["copper", "oak", "!two_answers"],
        choices=4,
    ),
    "a text that contradicts the letter": recipe(
        "question, choices, answer, answer_text",
        [(METAL, FOUR, "A", "copper"), (PLANT, FOUR, "B", "wool")],
        ["copper", "!two_answers"],
        choices=4,
    ),
    "ropes": recipe(
        "background, situation, question, answers",
        [("Heat melts ice.", "Ann's cup is hot.", "Whose ice melts?", {"text": ["Ann's"]})],
        ["Ann's"],
        question="Heat melts ice.\n\nAnn's cup is hot.\n\nWhose ice melts?",
    ),
    "narrativeqa": recipe(
        "document, question, answers",
        [({"summary": {"text": PASSAGE}, "text": "long"}, {"text": RED}, [{"text": "red"}, {"text": "It is red."}])],
        ["red"],
        question=f"{PASSAGE}\n\n{RED}",
        aliases=["It is red."],
    ),
    "finqa": recipe(
        "pre_text, table, question, answer",
        [(["the rent was 5 in 2001."], [["year", "rent"], ["2001", "5"]], "What was the rent?", "5")],
        ["5"],
        question="What was the rent?",
        unused="pre_text, table",
    ),
    "yahoo answers": recipe(
        "question_title, question_content, best_answer",
        [("Why is the sky blue?", "I wonder.", "Scattering."), ("Why do cats purr?", "", "They vibrate.")],
        ["Scattering.", "They vibrate."],
        question="Why is the sky blue? I wonder.",
    ),
    "eli5": recipe(
        "title, selftext, answers",
        [(METAL, "", {"text": ["Copper."]}), (PLANT, "", {"text": ["Oak."]})],
        ["Copper.", "Oak."],
    ),
    "jec-qa": recipe(
        "statement, option_list, answer",
        [
            (METAL, dict(zip("ABCD", FOUR, strict=True)), ["A"]),
            (PLANT, dict(zip("ABCD", FOUR, strict=True)), ["B", "C"]),
        ],
        ["copper", "BC"],
        choices=4,
    ),
    "a chinese exam": recipe(
        "试题, 选项1, 选项2, 标准答案",
        [("哪个是金属？", "铜", "橡木", "1"), ("哪个是树？", "铜", "橡木", "2")],
        ["铜", "橡木"],
        choices=2,
    ),
    "mgsm": recipe("question, answer, answer_number", [("3 - 1 = ?", None, 2), ("3 - 2 = ?", None, 1)], ["2", "1"]),
    "bioasq": recipe(
        "body, exact_answer",
        [(METAL, [["copper", "red metal"]]), (PLANT, [["oak"]])],
        ["copper", "oak"],
        aliases=["red metal"],
    ),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("saved", [False, True], ids=["rows", "parquet"])
def test_data_sets_read_as_their_authors_meant(name, saved, tmp_path):
    rows, expected, first = RECIPES[name]
    source = rows
    if saved:
        source = tmp_path / "part.parquet"
        pd.DataFrame(rows).to_parquet(source)
    table, rejects = read_seeds(source)
    got = {row.row: row.answer for row in table.itertuples()} | {
        row.row: f"!{row.reason}" for row in rejects.itertuples()
    }
    assert [got[i] for i in sorted(got)] == expected
    if not len(table):
        return
    row = table.iloc[0]
    assert len(row["choices"] or ()) == first.get("choices", 0)
    if row["choices"]:
        assert row["choices"][row["answer_index"]] == row["answer"]
    for column in set(first) - {"choices", "unused"}:
        assert row[column] == first[column], column
    assert ("aliases" in first) == bool(row["aliases"])
    assert first.get("unused", "") in ", ".join(layout_report(table)["unused"].dropna())


def test_there_are_forty():
    assert len(RECIPES) >= 40
