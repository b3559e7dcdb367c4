"""The words and LaTeX commands with a meaning in mathematics, shared by normalisation, parser and comparison."""

from __future__ import annotations


def commands(names: str) -> frozenset[str]:
    r"""Return the LaTeX commands with these names, which are separated by blanks.

    Example:
        >>> sorted(commands("pi sqrt"))
        ['\\pi', '\\sqrt']
    """
    return frozenset(f"\\{name}" for name in names.split())


FUNCTIONS = commands(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh arcsinh arccosh arctanh csch "
    "sech coth log ln lg exp gcd lcm max min det abs floor ceil binomial factorial"
)
# Greek letters and other symbols that stand for a value.
SYMBOLS = commands(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega infty emptyset ell hbar"
)
# They make another name of a letter.
ACCENTS = commands("hat dot ddot vec tilde")
# Names with a fixed value; every other name is a variable.
CONSTANTS = ("e", "i", "\\pi", "\\infty")
# A run of up to three letters can be a product of variables; a longer one is a word.
LONGEST_PRODUCT = 3
# What people type as words, without a backslash.
TYPED_SYMBOLS = {name[1:]: name for name in SYMBOLS - commands("xi Xi Pi ell")}
TYPED_SYMBOLS |= dict.fromkeys(("inf", "infinity", "oo"), "\\infty")
TYPED_COMMANDS = {name[1:]: name for name in FUNCTIONS} | TYPED_SYMBOLS
TYPED_COMMANDS |= {"sqrt": "\\sqrt", "cosec": "\\csc", "cosech": "\\csch"}

_SMALL_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBER_WORDS = {
    **{word: value for value, word in enumerate(_SMALL_NUMBERS.split())},
    **{word: 10 * value for value, word in enumerate(_TENS.split(), 2)},
}
# Normal forms have no blanks: forty two is fortytwo.
NUMBER_WORDS |= {
    f"{tens}{joint}{ones}": NUMBER_WORDS[tens] + NUMBER_WORDS[ones]
    for tens in _TENS.split()
    for ones in _SMALL_NUMBERS.split()[1:10]
    for joint in ("-", "")
}
_FIRST = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
ORDINALS = _FIRST.split()
# Words for powers of ten, and their exponents.
SCALES = {"hundred": 2, "thousand": 3, "lakh": 5, "million": 6, "crore": 7, "billion": 9, "trillion": 12}
