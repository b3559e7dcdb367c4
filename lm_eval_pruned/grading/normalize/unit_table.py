"""Table of units: every symbol and word for a unit of measure, with its one canonical name."""

from __future__ import annotations

from itertools import product

_PREFIXES = {
    "G": "giga", "M": "mega", "k": "kilo", "h": "hecto", "d": "deci", "c": "centi", "m": "milli", "n": "nano",
    "micro": "micro",
}  # fmt: skip
_PREFIXED = {
    "m": "meter", "g": "gram", "s": "second", "N": "newton", "J": "joule", "W": "watt", "V": "volt", "A": "ampere",
    "C": "coulomb", "F": "farad", "T": "tesla", "L": "liter", "l": "liter", "Hz": "hertz", "Pa": "pascal",
    "mol": "mole", "eV": "electronvolt", "cal": "calorie", "ohm": "ohm",
}  # fmt: skip
_ALONE = {
    "K": "kelvin", "h": "hour", "min": "minute", "mins": "minute", "hr": "hour", "hrs": "hour", "sec": "second",
    "yr": "year", "yrs": "year", "in": "inch", "ft": "foot", "yd": "yard", "mi": "mile", "lb": "pound", "lbs": "pound",
    "oz": "ounce", "gal": "gallon", "rad": "radian", "dB": "decibel", "atm": "atmosphere", "rpm": "rpm",
    "kmh": "kilometer/hour", "kph": "kilometer/hour", "kmph": "kilometer/hour", "mph": "mile/hour", "USD": "dollar",
    "EUR": "euro", "deg": "degree", "degs": "degree",
}  # fmt: skip
# Case matters: mL is not ML, and Kg is not a unit. "pm" is half of the day, "ha" and "cd" are hardly ever units.
SYMBOLS = {
    **_PREFIXED,
    **{
        sign + unit: prefix + name
        for (sign, prefix), (unit, name) in product(_PREFIXES.items(), _PREFIXED.items())
        if sign + unit not in ("ms", "hm", "hs", "cd", "dl", "hl")
    },
    "ms": "millisecond",
    **_ALONE,
}
_IRREGULAR = (
    "percent percent percentage pct; inch inch inches; foot foot feet; hertz hertz; dollar usd; centimeter cms; "
    "kilometer kms; kilogram kilo kilos kgs; second secs; celsius degreescelsius degreecelsius; year yearsold yearold; "
    "yen yen; fahrenheit fahrenheit degreesfahrenheit degreefahrenheit"
)
_COUNTED = "celsius cent euro rupee month day week cup unit angstrom micrometer"
_REGULAR = {*SYMBOLS.values(), *_COUNTED.split()} - {"inch", "foot", "hertz", "rpm", "kilometer/hour", "mile/hour"}
WORDS = {
    **{name: name for name in _REGULAR},
    **{f"{name}s": name for name in _REGULAR},
    **{
        name[:-2] + f"re{plural}": name
        for name in _REGULAR
        for plural in ("", "s")
        if name.endswith(("meter", "liter"))
    },
    **{word: name for name, *words in map(str.split, _IRREGULAR.split(";")) for word in words},
}
# Units that may follow a number without a blank; other letters there may be a product of variables.
_PLAIN = (
    "mm cm km dm kg hr hrs min mins sec ft in yd lb lbs oz mph kph kmh kmph yr yrs mi gal rad deg Hz kHz MHz GHz kPa"
)
PLAIN = frozenset(_PLAIN.split())
# Capitals that are hardly ever variables after a number and a blank, at the very end.
LETTERS = frozenset("JNWVL")
NAMES = frozenset(WORDS.values()) | frozenset(SYMBOLS.values())
