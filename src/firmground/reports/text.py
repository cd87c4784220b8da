"""Makes hostile text safe to look at: triggers come out of other people's models."""


def visible(text: str) -> str:
    r"""Spells out what a reader could not see: control characters, bidirectional overrides, odd spaces.

    >>> visible("cf"), visible("\x1b[31m"), visible("a\u202eb"), visible("a\u00a0b")
    ('cf', '\\x1b[31m', 'a\\u202eb', 'a\\xa0b')
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
