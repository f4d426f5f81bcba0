"""What the n-grams of a title are, and their codes: the definition, one text at a time.

Columns of texts go through model/text_arrays.py, which gives the same. Knows nothing of features.
"""

import re
import unicodedata

import xxhash

NUM_TEXT_BUCKETS = 1 << 15
MAX_TEXT_TOKENS = 96
"""Words count before trigrams, so that a long title loses endings and no words. By TF-IDF kNN over
MicroLens' titles (validation recall@50): 0.058 with the first 48 tokens in the order of the text,
0.072 with words first, 0.086 with 96, 0.087 with all."""
TEXT_ORDER = "words first"

WORD = re.compile(r"[㐀-鿿぀-ヿ가-힯]+|[^\W_㐀-鿿぀-ヿ가-힯]+")
CJK = re.compile(r"[㐀-鿿぀-ヿ가-힯]")


def text_tokens(text: str) -> list[str]:
    """Cut a text into n-grams, each once: the words in order, then the parts of words.

    Chinese, Japanese and Korean runs give single characters and pairs; other words give the word
    and, after all words, its character trigrams (with `<` and `>` at its ends), so that inflections
    share tokens.
    """
    words: dict[str, None] = {}
    parts: dict[str, None] = {}
    for word in WORD.findall(unicodedata.normalize("NFKC", text).lower()):
        if CJK.match(word):
            words.update(dict.fromkeys(word))
            words.update(dict.fromkeys(word[i : i + 2] for i in range(len(word) - 1)))
        else:
            words[f"={word}"] = None
            if len(word) > 3:
                marked = f"<{word}>"
                parts.update(dict.fromkeys(marked[i : i + 3] for i in range(len(marked) - 2)))
    return [*words, *parts]


def token_code(token: str) -> int:
    """From 1 to NUM_TEXT_BUCKETS: the token's xxh32 modulo NUM_TEXT_BUCKETS, plus 1."""
    return xxhash.xxh32_intdigest(token.encode()) % NUM_TEXT_BUCKETS + 1


def codes_of_text(text: str | None) -> list[int]:
    """The codes of a text's first MAX_TEXT_TOKENS tokens; none of an empty or missing text."""
    return [token_code(token) for token in text_tokens(text)[:MAX_TEXT_TOKENS]] if text else []
