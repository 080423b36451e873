"""Dates and times of day in answers, in English and Chinese notation."""

import re

_CLOCK = re.compile(
    r"(?P<zh>凌晨|早上|上午|中午|下午|晚上)?\s*(?P<hour>\d{1,2})(?:\s*(?::|点钟?|时)\s*(?P<minute>\d{2}(?!\d)|半)?分?)?\s*"
    r"(?P<half>[ap]\.?\s?m\b\.?|o'clock)?",
    re.IGNORECASE,
)
_NAMED_TIMES = {"noon": "12:00 pm", "正午": "12:00 pm", "midnight": "12:00 am", "午夜": "12:00 am"}
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"(?:the\s+)?(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_ERA = r"(?P<era>B\.?C\.?(?:E\.?)?|A\.?D\.?|C\.?E\.?)"
_YEAR = rf"(?P<year>\d{{3,4}}|\d{{1,2}}(?=\s*[ABC]))(?:\s*{_ERA})?"
_DATES = [
    re.compile(rf"(?:(?:on|in)\s+)?(?:{pattern})", re.IGNORECASE)
    for pattern in (
        rf"{_MONTH}\s+{_DAY}(?:,?\s+{_YEAR})?",
        rf"{_DAY}\s+(?:of\s+)?{_MONTH}(?:,?\s+{_YEAR})?",
        rf"{_MONTH},?\s+(?:of\s+)?{_YEAR}",
        r"(?P<year>\d{4})([-/.])(?P<month>\d{1,2})\2(?P<day>\d{1,2})",
        r"(?:公元)?(?P<year>\d{1,4})年(?P<month>\d{1,2})月(?:(?P<day>\d{1,2})[日号])?",
        r"(?P<month>\d{1,2})月(?P<day>\d{1,2})[日号]",
        rf"(?P<year>\d{{1,4}})\s*{_ERA}",
        r"(?P<era>A\.?D\.?)\s*(?P<year>\d{1,4})",
        r"(?P<era>公元前?)(?P<year>\d{1,4})年?",
    )
]
_WEEKDAYS = dict(
    zip(["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"], range(7), strict=True)
)
_WEEKDAYS |= {f"星期{day}": i for i, day in enumerate("一二三四五六日")} | {"星期天": 6}


def read_clock(text: str) -> tuple[int, bool] | None:
    """Minutes since midnight, and whether am or pm is known: "7:30 pm", "19:30", "9 am", "noon", "下午3点半"; None for
    other texts."""
    text = _NAMED_TIMES.get(text.casefold(), text)
    found = _CLOCK.fullmatch(text) if len(text) <= 24 else None
    if not found or text.isdigit() or re.fullmatch(r"\d+时?", text):
        return None
    hour = int(found["hour"])
    minute = 30 if found["minute"] == "半" else int(found["minute"] or 0)
    half = (found["half"] or "").casefold()[:1].replace("o", "")
    half = half or {"凌": "a", "早": "a", "上": "a", "下": "p", "晚": "p", "中": "p"}.get((found["zh"] or "")[:1], "")
    if hour > (12 if half else 24) or minute > 59:
        return None
    hour = hour % 12 + 12 * (half == "p") if half else hour
    return hour * 60 + minute, bool(half) or hour > 12


def same_time(a: str, b: str) -> bool | None:
    """Compare two times of day; None if only one of them says whether it is am or pm."""
    (minutes_a, known_a), (minutes_b, known_b) = read_clock(a), read_clock(b)
    if minutes_a == minutes_b:
        return True if known_a == known_b else None
    return None if known_a != known_b and minutes_a % 720 == minutes_b % 720 else False


def read_date(text: str) -> dict[str, int] | None:
    """Year (negative for BC), month and day as far as given, or the weekday; None for other texts and for a plain
    year."""
    if len(text) > 30:
        return None
    weekday = _WEEKDAYS.get(re.sub(r"^(?:周|礼拜)(?=.$)", "星期", text).casefold())
    if weekday is not None:
        return {"weekday": weekday}
    found = next((m for pattern in _DATES if (m := pattern.fullmatch(text))), None)
    if not found:
        return None
    parts = {name: value for name, value in found.groupdict().items() if value}
    era = parts.pop("era", "").replace(".", "").casefold()
    month = parts.get("month", "")
    if month and not month.isdigit():
        parts["month"] = _MONTHS.split().index(month[:3].casefold()) + 1
    read = {name: int(value) for name, value in parts.items()}
    if era in ("bc", "bce", "公元前"):
        read["year"] = -read["year"]
    return read if read.get("month", 1) in range(1, 13) and read.get("day", 1) in range(1, 32) else None


def same_date(a: dict[str, int], b: dict[str, int]) -> bool | None:
    """Compare two dates: different if any shared part differs, undecided if one has fewer parts."""
    if a == b:
        return True
    shared = a.keys() & b.keys()
    return None if shared and all(a[name] == b[name] for name in shared) else False if shared else None
