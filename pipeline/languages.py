"""The two three-letter codes of some languages, and which of them QuickTime knows (ISO 639-2)."""

BIBLIOGRAPHIC = {
    "sqi": "alb",
    "hye": "arm",
    "eus": "baq",
    "mya": "bur",
    "zho": "chi",
    "ces": "cze",
    "nld": "dut",
    "fra": "fre",
    "kat": "geo",
    "deu": "ger",
    "ell": "gre",
    "isl": "ice",
    "mkd": "mac",
    "msa": "may",
    "fas": "per",
    "ron": "rum",
    "slk": "slo",
    "bod": "tib",
    "cym": "wel",
}
"""The code after the English name of the language, by the one after its own name."""

QUICKTIME = {"deu": "ger", "nld": "dut", "ell": "gre", "isl": "ice", "zho": "chi", "sqi": "alb", "mkd": "mac"}
QUICKTIME |= {"fre": "fra", "rum": "ron", "cze": "ces", "slo": "slk", "swe": "sve"}
"""What FFmpeg's QuickTime muxer calls a language that it would otherwise drop."""


def same_language(a: str, b: str) -> bool:
    """Whether two codes mean one language."""
    return _code(a) == _code(b)


def _code(language: str) -> str:
    return BIBLIOGRAPHIC.get(language, "swe" if language == "sve" else language)
