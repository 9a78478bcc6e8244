"""Counts and values of a recipe as a sentence has them."""


def count_of(count: int, noun: str, plural: str | None = None) -> str:
    """`1 row`, `3,000 rows`; `plural` where it is not the noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def token_range(shortest: int, longest: int) -> str:
    """`11 tokens`, `12 to 40 tokens`."""
    if shortest == longest:
        return count_of(longest, "token")
    return f"{shortest:,} to {longest:,} tokens"


def show_value(value: object) -> str:
    """A value as a recipe writes it: null, true, [a, b]."""
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(show_value, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
