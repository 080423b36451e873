"""Units of quantities: size and dimension, looked up in pint's registry by English and Chinese names.

Only single names are looked up, so no text is ever evaluated; products, powers and "per" are parsed here.
"""

import functools
import math
import re
from typing import NamedTuple

_MAX_TOKENS = 16

# What pint does not have: money, Chinese names, more English spellings. Chinese prefixes must precede Chinese units.
_DEFINITIONS = """
USD = [money_usd] = $ = dollar = US_dollar = 美元 = 美金
EUR = [money_eur] = € = euro = 欧元
GBP = [money_gbp] = £ = pound_sterling = 英镑
CNY = [money_cny] = ¥ = yuan = rmb = 元 = 人民币 = 块
JPY = [money_jpy] = _ = yen = 日元
KB = 1000 byte
角 = 0.1 CNY
斤 = 0.5 kg
两 = 0.05 kg
尺 = 1 / 3 m
寸 = 1 / 30 m
里 = 500 m = 华里
亩 = 2000 / 3 m ** 2
INR = [money_inr] = ₹ = rupee = rs = 卢比
US_cent = 0.01 USD = ¢ = penny
千- = 1000
毫- = 0.001
微- = 1e-6
厘- = 0.01
分- = 0.1
纳- = 1e-9
兆- = 1e6
"""
_ALIASES = """meter 米 公尺|kilometer 公里|gram 克|kilogram 公斤 kilo|second 秒 秒钟|minute 分钟|hour 小时 钟头 时 个小时 个钟头|day 天 日|week 周 星期 个星期|
month 个月|year 年 yrs|liter 升 公升|newton 牛 牛顿|joule 焦 焦耳|watt 瓦 瓦特|pascal 帕 帕斯卡|hertz 赫 赫兹|volt 伏 伏特|ampere 安 安培|
ohm 欧 欧姆|coulomb 库 库仑|farad 法拉|henry 亨 亨利|tesla 特斯拉|weber 韦伯|kelvin 开 开尔文|mole 摩 摩尔|candela 坎德拉|lumen 流明|lux 勒克斯|
calorie 卡 卡路里|electron_volt 电子伏特 电子伏|degree ° 度|degree_Celsius ℃ 摄氏度|degree_Fahrenheit ℉ 华氏度|
standard_atmosphere 大气压|metric_ton 吨|hectare 公顷|mile 英里|foot 英尺|inch 英寸|nautical_mile 海里|US_cent cent 美分|kilometer_per_hour kmh kph|
meter_per_second mps|watt_hour 瓦时"""
_MARKS = {"'": ("foot", "arcminute"), '"': ("inch", "arcsecond"), "''": ("inch", "arcsecond")}
_AMBIGUOUS = {"pound": "GBP", "degree": "degree_Celsius", "ton": "metric_ton"}  # 5 pounds: mass or money
_SPECIAL = {"becquerel", "gray", "sievert", "hertz"}  # same dimension as another unit, but never meant as that
_LETTERS = frozenset("gmshlLVAWNJKCFTHMtdΩÅ°$€£¥¢₹%")  # any other single letter is a variable
# In short names, only these take a prefix: "cat" is not a centi-atmosphere, "ma" not a milli-year.
_PREFIXED = (
    "meter gram second ampere kelvin mole candela liter joule watt newton pascal hertz volt ohm coulomb farad henry "
    "tesla weber electron_volt calorie bit byte bar becquerel gray sievert watt_hour lumen lux siemens molar parsec "
    "meter_Hg degree_Celsius decibel bel metric_ton"
)
_RARE = "yocto zepto atto femto exa zetta yotta ronna quetta ronto quecto hecto deca"
_POWERS = {"square": 2, "sq": 2, "平方": 2, "cubic": 3, "cu": 3, "立方": 3}
_AFTER = {"squared": 2, "cubed": 3}
_TOKEN = re.compile(
    r"\s*(平方|立方|每|°\s?[CF]\b|[°$€£¥¢₹℃℉]|[\u3400-\u9fff]+?(?=平方|立方|每|$|[^\u3400-\u9fff])|[^\W\d_]+|\^?\{?-?\d\}?|[/*·×.()-])"
)


class Unit(NamedTuple):
    """A unit as a factor times powers of base units, with an offset (°C)."""

    factor: float
    bases: tuple[tuple[str, float], ...]
    offset: float = 0.0


@functools.lru_cache(1)
def _registry():
    """pint's registry with our names; loaded on first use, which takes a second."""
    import pint

    registry = pint.UnitRegistry(cache_folder=None)
    for line in _DEFINITIONS.strip().splitlines():
        registry.define(line)
    for names in _ALIASES.replace("\n", "").split("|"):
        name, *others = names.split()
        registry.define(f"@alias {name} = {' = '.join(others)}")
    return registry


@functools.lru_cache(4096)
def units(text: str) -> tuple[Unit, ...]:
    """The units that a text may mean: "m/s^2", "metres per second squared", "平方厘米"; () for any other text."""
    if text.strip() in _MARKS:
        return tuple(_size(name) for name in _MARKS[text.strip()])
    tokens, position = [], 0
    text = re.sub(r"\bdegs?\.?\b", "degree", text.strip())
    text = re.sub(r"(?i)(?:\bdegrees?\s*|°\s*)?\b(?:celsius|centigrade)\b", "℃", text)
    text = re.sub(r"(?i)(?:\bdegrees?\s*|°\s*)?\bfahrenheit\b", "℉", text)
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found or len(tokens) >= _MAX_TOKENS:
            return ()
        tokens.append(found[1].replace(" ", ""))
        position = found.end()
    choices = [_parse(tokens, other) for other in (False, True)]
    return tuple(dict.fromkeys(unit for unit in choices if unit is not None))


def _parse(tokens: list[str], second_meaning: bool) -> Unit | None:
    """The unit that tokens describe; with `second_meaning`, by the second meaning of ambiguous words."""
    factor, bases, position, last = 1.0, {}, 0, None
    sign, group_sign, power = 1, 1, 1

    def multiply(unit: Unit, exponent: int) -> None:
        nonlocal factor
        factor *= unit.factor**exponent
        for base, n in unit.bases:
            bases[base] = bases.get(base, 0) + n * exponent

    while position < len(tokens):
        token = tokens[position]
        number = re.fullmatch(r"\^?\{?(-?\d)\}?", token)
        if token in ("/", "per", "每"):
            sign, last = -1, None
        elif token == "(":
            group_sign, sign = sign, 1
        elif token == ")":
            group_sign = 1
        elif token in ("*", "·", "×", ".", "-"):
            last = None
        elif token.casefold() in _POWERS:
            power = _POWERS[token.casefold()]
        elif number or token.casefold() in _AFTER:
            if last is None:
                return None
            multiply(last[0], last[1] * ((int(number[1]) if number else _AFTER[token.casefold()]) - 1))
            last = None
        else:
            for size in (3, 2, 1):  # light years, degrees Celsius
                run = tokens[position : position + size]
                found = None if "per" in run else _look_up("_".join(run), second_meaning)
                if found is not None:
                    break
            if found is None:
                return None
            position += min(size, len(tokens) - position) - 1
            last = found, power * sign * group_sign
            multiply(*last)
            sign, power = 1, 1
        position += 1
    offset = last[0].offset if last and len(tokens) == 1 else 0.0
    return Unit(factor, tuple(sorted((b, n) for b, n in bases.items() if n)), offset) if bases else None


@functools.lru_cache(4096)
def _look_up(name: str, second_meaning: bool) -> Unit | None:
    name = {"°C": "degree_Celsius", "°F": "degree_Fahrenheit"}.get(name, name)
    if len(name) > 40 or (len(name) == 1 and name.isascii() and name.isalpha() and name not in _LETTERS):
        return None
    singular = "_".join(w.removesuffix("s") for w in name.split("_"))
    for spelling in dict.fromkeys((name, name.casefold(), singular, singular.casefold())):
        for prefix, unit, suffix in sorted(_registry().parse_unit_name(spelling), key=lambda found: found[0] != ""):
            unlikely = suffix or prefix in _RARE.split() or unit not in _PREFIXED.split()
            if (prefix and unlikely and len(spelling) <= 4) or (spelling != name and len(spelling) < 2):
                continue
            if second_meaning and unit in _AMBIGUOUS and (unit != "pound" or "pound" in spelling):
                unit, prefix = _AMBIGUOUS[unit], ""
            return _size(prefix + unit)
    return _size("minute") if name == "分" else None


def _size(name: str) -> Unit | None:
    registry = _registry()
    try:
        zero, one, two = (registry.Quantity(n, name).to_root_units() for n in (0.0, 1.0, 2.0))
    except Exception:  # some units of pint have no root units
        return None
    special = next((special for special in _SPECIAL if name.endswith(special)), None)
    if not math.isclose(two.m - one.m, one.m - zero.m):  # dB: not a multiple of a base unit
        return Unit(1.0, ((name, 1.0),))
    if not math.isclose(two.m, 2 * one.m):  # °C
        return Unit(one.m - zero.m, tuple((str(b), float(n)) for b, n in one.unit_items()), zero.m)
    if special:
        return Unit(one.m, ((special, 1.0),))
    return Unit(one.m, tuple((str(b), float(n)) for b, n in one.unit_items()) or ((name, 1.0),))
