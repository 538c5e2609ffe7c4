"""Strings that tokenizers disagree on: the corpus for comparing ids before anything ships."""

from __future__ import annotations

import random

_WORDS = (
    "the", "don't", "I'll", "we'VE", "naïve", "Straße", "coöperate", "über", "São", "İstanbul", "ﬁne", "x", "URLs",
    "antidisestablishmentarianism", "HTTPServer2", "snake_case_name", "camelCaseName", "e.g.", "3rd", "Ⅻ", "½", "№",
)  # fmt: skip
_DIGITS = (
    "0",
    "7",
    "42",
    "007",
    "1234567890",
    "3.14159",
    "1,000,000",
    "-5",
    "+49 30 1234",
    "0xDEADBEEF",
    "1e-9",
    "٣٤٥",
    "१२३",
    "²³",
)
_CJK = ("日本語", "中文字符", "漢字かな交じり文", "한국어", "ひらがな", "カタカナ", "「引用」", "。", "ﾊﾝｶｸ", "𠮷野家")
_EMOJI = ("😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "☎", "1️⃣", "🤷🏿‍♀️", "✈︎")
_COMBINING = (
    "e\u0301",
    "a\u0308o\u0308",
    "Z\u0351\u036b\u0343a\u0363l\u0322g\u0321o\u0336",
    "\u0e01\u0e33",
    "नमस्ते",
    "క్ష",
    "\u1112\u1161\u11ab",
    "ệ",
)
_SCRIPTS = (
    "Привет",
    "Ελληνικά",
    "שלום",
    "مرحبا بالعالم",
    "ภาษาไทย",
    "ქართული",
    "አማርኛ",
    "ᚠᛇᚻ",
    "ⴰⵎⴰⵣⵉⵖ",
    "\u202eabc\u202c",
)
_SPACES = (
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    " \n ",
    "        ",
    "\u00a0",
    "\u2003",
    "\u3000",
    "\u200b",
    "\ufeff",
    "\u2028",
    "\x0b",
    "\x0c",
    "\x85",
)
_MARKS = (
    "...",
    "!!!",
    "?!",
    "--",
    "—",
    "“quotes”",
    "'",
    "''",
    '"',
    "`",
    "```",
    "(a)[b]{c}",
    "<>",
    "\\",
    "/",
    "#",
    "@me",
    "$5",
    "%",
    "^",
    "&amp;",
    "*",
    "_",
    "~",
    "|",
    "=",
    "\x00",
    "\x1b[0m",
    "\x7f",
    "\ufffd",
    "\U0010ffff",
)
_CODE = (
    "def f(x: int = 0) -> str:\n    return f'{x!r}'\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i]; }",
    "SELECT * FROM t WHERE id='1'; -- x",
    '{"a": [1, 2.5, null], "b": "\\u00e9\\n"}',
    '<div class="x">&nbsp;</div>',
    "\tif err != nil {\n\t\treturn err\n\t}\n",
    "git commit -m 'fix #12' && ls -la ~/x | grep \"^d\"",
    "https://example.org/a?b=c&d=%20#e",
    "λx.x → y ∈ ℝ ∀ ∑ ≠ ∞",
)
_LITERAL = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<s>",
    "</s>",
    "[INST]",
    "<bos>",
    "<unk>",
    "<|",
    "|>",
    "<|im_",
    "<start_of_turn>",
)
_GROUPS = (_WORDS, _DIGITS, _CJK, _EMOJI, _COMBINING, _SCRIPTS, _SPACES, _MARKS, _CODE, _LITERAL)


def stress_corpus(n: int = 10_000, seed: int = 0, special: tuple[str, ...] = ()) -> tuple[str, ...]:
    """`n` strings, the same for the same arguments.

    First every fragment alone, then random mixtures: words, digits, CJK, emoji with joiners,
    combining marks, other scripts, runs of whitespace, punctuation, control characters, code,
    control tokens spelled out (`special` adds the tokenizer's own), and random code points.

    >>> len(stress_corpus(100)), stress_corpus(100) == stress_corpus(100)
    (100, True)
    """
    rng = random.Random(seed)
    groups = (*_GROUPS, special) if special else _GROUPS
    out = [fragment for group in groups for fragment in group][:n]
    while len(out) < n:
        pieces = []
        for _ in range(rng.randint(1, 12)):
            kind = rng.random()
            if kind < 0.08:
                pieces.append(_random_character(rng))
            elif kind < 0.2:
                pieces.append(rng.choice(_SPACES) * rng.randint(1, 9))
            else:
                pieces.append(rng.choice(rng.choice(groups)))
            if rng.random() < 0.4:
                pieces.append(" ")
        out.append("".join(pieces))
    return tuple(out)


def _random_character(rng: random.Random) -> str:
    """Any code point that UTF-8 can carry: surrogates are left out."""
    while True:
        code = rng.choice((rng.randrange(1, 0x300), rng.randrange(0x300, 0x3000), rng.randrange(0x3000, 0x110000)))
        if not 0xD800 <= code < 0xE000:
            return chr(code)
