"""Text from files and names, made fit for a terminal."""


def printable(text: str) -> str:
    """The same text with its control characters shown: a terminal would follow them."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
