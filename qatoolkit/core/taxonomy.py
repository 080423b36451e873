"""Disciplines, and the rubrics of difficulty and grade that annotation, probing and synthesis share.

The papers name five difficulty levels, H1 to H5, of which H4 and H5 are high, and synthesis across school grades
(BoostQA, arXiv 2508.01326). The list of disciplines, the five grades and the wording of levels and grades are our
reading. `seeds.subjects` maps the tasks of benchmarks to disciplines.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Discipline:
    """One discipline: its id, its English and Chinese name, and whether it counts as STEM."""

    id: str
    en: str
    zh: str
    stem: bool


def _disciplines(stem: bool, **zh: str) -> dict[str, Discipline]:
    return {id: Discipline(id=id, en=id.replace("_", " ").capitalize(), zh=name, stem=stem) for id, name in zh.items()}


DISCIPLINES = _disciplines(
    True, mathematics="数学", statistics="统计学", physics="物理学", chemistry="化学", biology="生物学",
    astronomy="天文学", earth_science="地球科学", computer_science="计算机科学", engineering="工程学",
) | _disciplines(
    False, medicine="医学", geography="地理学", history="历史学", literature="文学", arts="艺术", philosophy="哲学",
    economics="经济学", law="法学", linguistics="语言学",
)  # fmt: skip
STEM = tuple(id for id, d in DISCIPLINES.items() if d.stem)

GRADES = {"primary": "小学", "middle": "初中", "high": "高中", "undergraduate": "本科", "graduate": "研究生"}

DIFFICULTIES = ("H1", "H2", "H3", "H4", "H5")
HIGH = ("H4", "H5")

# The label columns of a question and their values, in order.
LABELS = {"discipline": tuple(DISCIPLINES), "difficulty": DIFFICULTIES, "grade": tuple(GRADES)}

RUBRIC = {
    "H1": {"en": "recall: one concept, asked the way it is usually stated", "zh": "记忆：单一概念，按通常的表述提问"},
    "H2": {
        "en": "reversed recall: one concept, asked from its value or consequence back to its name",
        "zh": "逆向记忆：单一概念，由结果或数值反推其名称",
    },
    "H3": {
        "en": "two hops: two linked facts, the first of which is not named in the question",
        "zh": "两步关联：需要连接两个事实，其中一个在题目中没有直接给出",
    },
    "H4": {
        "en": "a chain: three or more linked facts, across disciplines too, or one step with a formula",
        "zh": "链条：连接三个或更多事实，可跨学科；或套用一次公式",
    },
    "H5": {
        "en": "an operation over several facts: items compared or matched by what is known of each, or a formula problem "
        "of more than one step",
        "zh": "对多个事实的运算：按各自的已知信息比较或匹配多个对象，或需要多步的公式题",
    },
}

GRADE_RUBRIC = {
    "primary": {
        "en": "reads, counts and names: whole numbers and simple shapes, and what every child learns about the world",
        "zh": "能读、会算、知名称：整数、简单图形，以及每个孩子都学到的常识",
    },
    "middle": {
        "en": "knows the basic terms of each school subject: ratios, linear equations, "
        "a formula with its numbers given",
        "zh": "掌握各学科的基本概念：比例、一次方程、直接代入数值的公式",
    },
    "high": {
        "en": "applies the laws, works and events of the school syllabus: functions, probability, "
        "a formula to rearrange",
        "zh": "能运用高中课程中的定律、作品与史实：函数、概率、需要变形的公式",
    },
    "undergraduate": {
        "en": "knows the theory, methods and authors of one field, as a first degree teaches them: calculus, case law",
        "zh": "掌握某一专业本科阶段的理论、方法与代表人物：微积分、判例等",
    },
    "graduate": {
        "en": "knows the details of a specialism: results, derivations and dates that a first degree leaves out",
        "zh": "熟悉某一研究方向的细节：本科课程不涉及的结论、推导与年代",
    },
}
