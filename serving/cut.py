"""Where a large request is cut, so that others have their turn between its parts."""

from collections.abc import Iterator, Sequence


def cut(sizes: Sequence[int], *, most: int) -> Iterator[tuple[int, int]]:
    """Queries [first, last) that make one part: of `most` together, or one query's if that has
    more."""
    first = total = 0
    for query, size in enumerate(sizes):
        if total and total + size > most:
            yield first, query
            first, total = query, 0
        total += size
    yield first, len(sizes)
