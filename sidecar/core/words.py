"""Numbers with their nouns, for people: in logs and in what commands print."""


def counted(number: int, noun: str) -> str:
    """`number` and `noun`, which takes an s in the plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
