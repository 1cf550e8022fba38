"""Abbreviations, initials, and Roman numerals after names."""

import re

from tacotron2.text.english.words import cardinal, ordinal, roman, spell

TITLES = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "drs": "doctors", "prof": "professor",
    "rev": "reverend",
    "gen": "general", "maj": "major", "col": "colonel", "capt": "captain", "lt": "lieutenant", "sgt": "sergeant",
    "hon": "honorable", "gov": "governor", "sen": "senator", "rep": "representative", "pres": "president",
    "messrs": "messieurs",
    "mt": "mount", "ft": "fort", "esq": "esquire", "jr": "junior", "sr": "senior", "co": "company",
    "corp": "corporation",
    "inc": "incorporated", "ltd": "limited", "vs": "versus", "etc": "et cetera", "approx": "approximately",
    "dept": "department",
    "est": "established", "ave": "avenue", "blvd": "boulevard", "rd": "road", "hwy": "highway", "vol": "volume",
    "fig": "figure", "figs": "figures", "ch": "chapter", "pp": "pages", "ed": "edition", "tel": "telephone",
    "govt": "government", "assn": "association", "univ": "university",
}  # fmt: skip
"Words for abbreviations before a full stop, which is dropped with them."
ONLY_BEFORE_NUMBERS = {"vol", "fig", "figs", "ch", "pp", "p", "ed", "sec"}
DOTTED = {
    "e.g.": "for example", "i.e.": "that is", "a.k.a.": "also known as", "w/o": "without", "w/": "with",
    "Ph.D.": "pee aitch dee",
}  # fmt: skip
DOTTED_WORDS = re.compile(r"(?<![\w.])(?:e\.g\.|i\.e\.|a\.k\.a\.|Ph\.D\.|w/o(?!\w)|w/(?=\s))")
TITLE = re.compile(
    r"(?<![\w.])(?!(?<=[0-9]\s)(?-i:ft|ms)\.)"  # those are feet and milliseconds
    rf"({'|'.join(TITLES)}|p|sec)\.(\s?[0-9])?",
    re.IGNORECASE,
)
STREET = re.compile(r"(?<=[a-z0-9]\s)St(?:\.(?=[,;]|\s[a-z]|\s*$)|(?=[,;]|\s[a-z]|\s*$))")
SAINT = re.compile(r"(?<!\w)St\.(?=\s[A-Z])")
INITIALS = re.compile(r"(?<![\w.'])(?:[A-Z]\.[\s-]?){1,5}(?=[A-Z][a-z])")
DOTTED_CAPITALS = re.compile(
    r"(?<![\w.])(?!(?<=[0-9]\s)[apAP]\.[mM]\.)"  # that is a time
    r"(?:(?:[A-Za-z]\.){2,9}(?!\w)|[A-Z]\.(?:[A-Z]\.){0,9}[A-Z](?!\w))"
)
CAPITALS = re.compile(r"(?<![\w'])([A-Z]{2,6})('?s)?(?![\w])")
LONE_CAPITAL = re.compile(r"(?<![\w.'’])[B-HJ-Z](?![\w'’]|\.[A-Z])")
SPELLED = {
    "USA", "UK", "EU", "UN", "UAE", "FBI", "CIA", "IRS", "AI", "ID", "IQ", "CEO", "CIO", "CTO", "CFO", "EPA", "NBA",
    "FDA", "ATM", "USB", "UFO", "API", "URL", "OK",
}  # fmt: skip
"Initials with a vowel that are nevertheless not read as a word."
LETTERS_WITH_AMPERSAND = re.compile(r"(?<!\w)([A-Z]{1,3})\s?&\s?([A-Z]{1,3})(?!\w)")
RULERS = (
    "Henry|Louis|Elizabeth|George|Charles|Edward|James|William|Richard|Mary|Philip|Frederick|Peter|Catherine|Nicholas|Alexander|"
    "Napoleon|Francis|Pius|Benedict|Gregory|Leo|Paul|Clement|Innocent|Urban|Julius|Victor|Wilhelm|Ferdinand|Otto|Christian|"
    "Gustav|Leopold|Albert|Ramses|Ptolemy|Darius|Xerxes|Constantine|Ivan|Robert|David|Harald|Olaf|Haakon|Umberto|Felipe|"
    "Alfonso|Carlos|Juan|Pedro|Boniface|Sixtus|Celestine|Stephen|John|Edmund|Rainier|Selim|Suleiman|Mehmed|Rama|Thutmose|Amenhotep"
)
NUMERAL = r"[IVXLC]+"
VERBS = "am|think|have|know|do|will|would|saw|said"
"What may follow an I that is not a numeral: George I think."
RULER = re.compile(rf"\b({RULERS})\s({NUMERAL})\b(?!\.[A-Z])(?!\s(?:{VERBS})\b)")
NUMBERED = (
    "World War|Part|Chapter|Book|Volume|Act|Scene|Section|Article|Phase|Type|Class|Super Bowl|Title|Appendix|Episode|"
    "Mark|Stage|Level|Grade|Apollo|Rocky|Star Wars|Vatican|Schedule|Table|Figure|Tier|Category|War|Olympiad"
)
COUNTED = re.compile(rf"\b({NUMBERED})\s({NUMERAL})\b(?!')")
OTHER = re.compile(r"(?<=[a-z]\s)([IVXL]{2,})\b(?!')")


def read_names(text: str) -> str:
    """``Dr.`` -> ``doctor``, ``J. K. Rowling`` -> ``jay kay Rowling``, ``Henry VIII`` -> ``Henry the eighth``."""
    text = DOTTED_WORDS.sub(lambda m: DOTTED[m[0]] + _kept_stop(m), text)
    text = RULER.sub(_ruler, text)
    text = COUNTED.sub(lambda m: f"{m[1]} {cardinal(str(roman(m[2])))}" if roman(m[2]) else m[0], text)
    text = OTHER.sub(lambda m: cardinal(str(roman(m[1]))) if roman(m[1]) else m[0], text)
    text = INITIALS.sub(lambda m: f"{spell(m[0])} ", text)
    text = STREET.sub("street", text)
    text = SAINT.sub("saint", text)
    text = TITLE.sub(_title, text)
    return DOTTED_CAPITALS.sub(lambda m: spell(m[0]) + _kept_stop(m), text)


def read_capitals(text: str) -> str:
    """``BBC`` -> ``bee bee see``; a word that can be read, such as NASA, stays, and so does a text in capitals."""
    text = LETTERS_WITH_AMPERSAND.sub(lambda m: f"{spell(m[1])} and {spell(m[2])}", text)
    if not any(c.islower() for c in text):
        return text
    return LONE_CAPITAL.sub(lambda m: spell(m[0]), CAPITALS.sub(_capitals, text))


def _title(match: re.Match) -> str:
    word, digit = match[1].lower(), match[2] or ""
    if word in ONLY_BEFORE_NUMBERS and not digit:
        return match[0]
    name = TITLES.get(word) or {"p": "page", "sec": "section"}[word]
    return name + (f" {digit.strip()}" if digit else _kept_stop(match))


def _kept_stop(match: re.Match) -> str:
    """An abbreviation's full stop is the sentence's, too, at its end."""
    return "." * (match[0].endswith(".") and not match.string[match.end() :].strip())


def _ruler(match: re.Match) -> str:
    value = roman(match[2])
    return f"{match[1]} the {ordinal(str(value))}" if value else match[0]


def _capitals(match: re.Match) -> str:
    word, ending = match[1], match[2] or ""
    if word in SPELLED or not re.search("[AEIOUY]", word):
        letters = spell(word)
        return letters + ("'s" if ending == "'s" else "s" if ending else "")
    return match[0]
