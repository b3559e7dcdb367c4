"""Bounds on what grading reads, nests, computes and waits for; adversarial or endless text is refused at these sizes.

A text beyond a bound is never judged in part: it is compared as a string, or its verdict is "unparsed" or "timeout".
"""

from __future__ import annotations

# Extraction

# Characters at the end of a response that are searched for an answer: the answer comes last.
MAX_RESPONSE_CHARACTERS = 200_000
# A whole response up to this length, without markup, may be a bare answer.
MAX_BARE_ANSWER_CHARACTERS = 100
# Content of one box, tag or similar span. Without a bound, overlapping spans would take quadratic time.
MAX_SPAN_CHARACTERS = 1000
# A choice letter together with the text of its choice. Nested boxes of any length would take quadratic time.
MAX_CHOICE_CHARACTERS = 300
# Boxes, tags and JSON fields, the last ones, in which a choice letter is looked for.
MAX_CHOICE_SPANS = 100
# Characters at the end of a response that are searched for sentences which choose a letter.
MAX_CHOSEN_CHARACTERS = 50_000
# Text read after "the answer is", which shows how the answer goes on; overlapping lines would take quadratic time.
MAX_ANNOUNCEMENT_CHARACTERS = 400
# Announcements and declarations read in one response; a response with more of them repeats itself.
MAX_ANNOUNCEMENTS = 1000

# Normal form

# An answer that is longer is compared as a string only.
MAX_ANSWER_CHARACTERS = 10_000
# Passes of normalisation: removing one thing can join two others (a letter and its accent); few are needed.
MAX_NORMALIZE_PASSES = 8
# Characters at the end of a normal form in which a unit is looked for.
MAX_UNIT_CHARACTERS = 80

# Numbers and expressions

# Characters of a number: above every benchmark answer, far below the 4300 digits at which Python's int() refuses.
MAX_NUMBER_CHARACTERS = 1000
# Decimal exponent in scientific notation, so that a short text is not expanded into a huge integer.
MAX_DECIMAL_EXPONENT = 1000
# A longer normal form is not parsed.
MAX_PARSED_CHARACTERS = 2000
# Nesting of brackets, braces and function arguments, which bounds the recursion of the parser.
MAX_PARSER_DEPTH = 40
# Postfixes (powers, factorials, degrees) on one value.
MAX_POSTFIXES = 6

# Comparison

# Members of an unordered collection: each may have to be compared with each member of the other side.
MAX_UNORDERED_MEMBERS = 40
# Inequalities joined into one region of the real line: each is intersected with all others.
MAX_REGION_BOUNDS = 40
# Bits of an exact numerator or denominator.
MAX_EXACT_BITS = 50_000
# Magnitude of an exponent in floating-point evaluation; arguments of functions that grow slowly may be its cube.
MAX_NUMERIC_EXPONENT = 10_000
# Magnitude of an argument of a fast-growing function (factorial, binomial, exp, sinh, cosh).
MAX_GROWING_ARGUMENT = 2_000

# Verdict cache: samples of one question repeat their answers. Long texts stay out, so that it takes a few MB at most.
MAX_CACHED_VERDICTS = 4096
MAX_CACHED_CHARACTERS = 400

# Sympy worker, as seen by the caller

# Seconds for one pair on a running worker, so that a verdict with all its other steps takes less than 2 s.
WORKER_DEADLINE = 1.5
# Seconds for the start of a worker and one pair on it.
WORKER_PATIENCE = 1.75
# What a pair gets at least, in seconds, after it waited for the start of its worker.
SHORTEST_DEADLINE = 0.25
# Seconds for a worker to start, imports included; a pair does not wait that long.
WORKER_START_DEADLINE = 60.0
# Pairs that one worker decides before it is replaced: sympy's caches grow, and a new worker costs half a second.
MAX_PAIRS_PER_WORKER = 500
# A longer text gets no second opinion. It fits into the buffer of a pipe, so that sending never blocks.
MAX_SYMPY_CHARACTERS = 300

# Sympy worker, sandbox of the process

# Address space of the process, in bytes.
MAX_WORKER_BYTES = 2 * 1024**3
# CPU seconds that the kernel grants beyond the deadline, in case the caller is too busy to kill the worker.
WORKER_CPU_GRACE = 2
# Seconds between two checks that the parent process still lives.
PARENT_CHECK_INTERVAL = 0.5

# Sympy, checked before anything is evaluated; its parser and its evaluation are slower than ours, so most are tighter

MAX_SYMPY_DIGITS = 200
MAX_SYMPY_DEPTH = 30
# Exponents, arguments of factorials and binomials, and factors of a product.
MAX_SYMPY_ARGUMENT = 1000
