"""What the n-grams of a title are, and their codes: the definition, one text at a time.

Columns of texts go through model/text_arrays.py, which gives the same. Knows nothing of features.
"""

import re
import unicodedata

import xxhash

NUM_TEXT_BUCKETS = 1 << 15
MAX_TEXT_TOKENS = 48

WORD = re.compile(r"[㐀-鿿぀-ヿ가-힯]+|[^\W_㐀-鿿぀-ヿ가-힯]+")
CJK = re.compile(r"[㐀-鿿぀-ヿ가-힯]")


def text_tokens(text: str) -> list[str]:
    """Cut a text into n-grams, in order, each once.

    Chinese, Japanese and Korean runs give single characters and pairs; other words give the word
    and its character trigrams (with `<` and `>` at its ends), so that inflections share tokens.
    """
    tokens: dict[str, None] = {}
    for word in WORD.findall(unicodedata.normalize("NFKC", text).lower()):
        if CJK.match(word):
            tokens.update(dict.fromkeys(word))
            tokens.update(dict.fromkeys(word[i : i + 2] for i in range(len(word) - 1)))
        else:
            tokens[f"={word}"] = None
            if len(word) > 3:
                marked = f"<{word}>"
                tokens.update(dict.fromkeys(marked[i : i + 3] for i in range(len(marked) - 2)))
    return list(tokens)


def token_code(token: str) -> int:
    """From 1 to NUM_TEXT_BUCKETS: the token's xxh32 modulo NUM_TEXT_BUCKETS, plus 1."""
    return xxhash.xxh32_intdigest(token.encode()) % NUM_TEXT_BUCKETS + 1


def codes_of_text(text: str | None) -> list[int]:
    """The codes of a text's first MAX_TEXT_TOKENS tokens; none of an empty or missing text."""
    return [token_code(token) for token in text_tokens(text)[:MAX_TEXT_TOKENS]] if text else []
