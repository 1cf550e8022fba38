"""english_cleaners_v2 reads initials, capitals, Roman numerals, addresses and numbers with something beside them."""

import pytest
from english import read

RULERS = """Henry Louis Elizabeth George Charles Edward James William Richard Mary Philip Frederick Peter Catherine
Nicholas Alexander Napoleon Francis Pius Benedict Gregory Leo Paul Clement Innocent Urban Julius Victor Wilhelm
Ferdinand Otto Christian Gustav Leopold Albert Ramses Ptolemy Darius Xerxes Constantine Ivan Robert David Harald Olaf
Haakon Umberto Felipe Alfonso Carlos Juan Pedro Boniface Sixtus Celestine Stephen John Edmund Rainier Selim Suleiman
Mehmed Rama Thutmose Amenhotep"""
NUMBERED = """World War,Part,Chapter,Book,Volume,Act,Scene,Section,Article,Phase,Type,Class,Super Bowl,Title,Appendix,
Episode,Mark,Stage,Level,Grade,Apollo,Rocky,Star Wars,Vatican,Schedule,Table,Figure,Tier,Category,War,Olympiad"""
VERBS = "am think have know do will would saw said"
SPELLED = "USA UK EU UN UAE FBI CIA IRS AI ID IQ CEO CIO CTO CFO EPA NBA FDA ATM USB UFO API URL OK"
NAMES = "ay bee see dee ee eff gee aitch eye jay kay ell em en oh pee cue are ess tee you vee double-you ex why zee"
LETTERS = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", NAMES.split(), strict=True))
SIGNS = """. dot, / slash, - dash, _ underscore, + plus, : colon, ? question mark, = equals, & and, # hash, % percent,
~ tilde"""
DOMAINS = {
    "com": "com", "org": "org", "net": "net", "edu": "edu", "gov": "gov", "info": "info", "dev": "dev", "app": "app",
    "ca": "ca", "fr": "eff are", "jp": "jay pee", "cn": "see en",
}  # fmt: skip


def spelled(letters):
    return " ".join(LETTERS[letter] for letter in letters)


@pytest.mark.parametrize("ruler", RULERS.split())
def test_rulers_have_ordinals(ruler):
    assert read(f"It was {ruler} I and {ruler} IV.") == f"it was {ruler} the first and {ruler} the fourth.".lower()


@pytest.mark.parametrize("verb", VERBS.split())
def test_an_i_before_a_verb_is_no_numeral(verb):
    assert read(f"Like George I {verb} so.") == f"like george i {verb} so."


@pytest.mark.parametrize("what", NUMBERED.replace("\n", "").split(","))
def test_what_is_counted_has_cardinals(what):
    assert read(f"It is {what} V, {what} I here.") == f"it is {what} five, {what} one here.".lower()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Henry IIII", "henry iiii"),
        ("George V.Smith", "george vee smith"),
        ("the king XIV", "the king fourteen"),
        ("the king V", "the king vee"),
        ("the IIX is", "the iix is"),
        ("the III's", "the iii's"),
        ("Part I's", "part i's"),
        ("Part IC is", "part ic is"),
    ],
)
def test_other_numerals(written, expected):
    assert read(written) == expected


@pytest.mark.parametrize("letters", SPELLED.split())
def test_capitals_with_a_vowel_that_are_spelled(letters):
    said = spelled(letters)
    assert read(f"the {letters}, an {letters}'s, two {letters}s") == f"the {said}, an {said}'s, two {said}s"


@pytest.mark.parametrize("letter", sorted(LETTERS))
def test_a_lone_capital_is_a_letter_but_for_a_and_i(letter):
    said = letter.lower() if letter in "AI" else LETTERS[letter]
    assert read(f"so {letter} is it") == f"so {said} is it"
    assert read(f"{letter}. Smith of it") == f"{LETTERS[letter]} smith of it"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("The BBC and the NASA", "the bee bee see and the nasa"),
        ("the BBCs, the BBC's", "the bee bee sees, the bee bee see's"),
        ("the XYZW", "the xyzw"),
        ("the BCDFGHJ is", "the bcdfghj is"),
        ("THE BBC SAYS", "the bbc says"),
        ("the R & D of AT&T", "the are and dee of ay tee and tee"),
        ("at the U.S. there", "at the you ess there"),
        ("in the U.S.", "in the you ess."),
        ("in the U.S", "in the you ess"),
        ("J.R.R. Tolkien", "jay are are tolkien"),
        ("J. R.-Smith", "jay are smith"),
        ("Mr. J.", "mister jay."),
        ("he's vs. it", "he's versus it"),
    ],
)
def test_capitals_and_initials(written, expected):
    assert read(written) == expected


@pytest.mark.parametrize("entry", SIGNS.replace("\n", " ").split(", "))
def test_signs_of_addresses(entry):
    sign, words = entry.split(maxsplit=1)
    assert read(f"at www.one{sign}two.com now") == (
        f"at double-you double-you double-you dot one {words} two dot com now"
    )


@pytest.mark.parametrize("domain", DOMAINS)
def test_domains_make_an_address(domain):
    said = (
        domain if domain in ("com", "org", "net", "edu", "gov", "info", "dev", "app", "ca") else spelled(domain.upper())
    )
    assert read(f"On site.{domain}, it is") == f"on site dot {said}, it is"
    assert read(f"On site.{domain}s") != f"on site dot {said}s"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("see https://a.org/b/.", "see ay dot org slash bee."),
        ("see http://www.one.de!", "see double-you double-you double-you dot one dot dee ee!"),
        ("see (one.com)", "see (one dot com)"),
        ("see one.io, two.ai, one.uk", "see one dot eye oh, two dot ay eye, one dot you kay"),
        ("see one.us, two.eu, one.au", "see one dot you ess, two dot ee you, one dot ay you"),
        ("see one.co", "see one dot co"),
        ("write a.b+c@d-e.org now", "write ay dot bee plus see at dee dash ee dot org now"),
        ("write a.co@one.org", "write ay dot co at one dot org"),
        ("see http://a.org/b@c.de", "see ay dot org slash bee at see dot dee ee"),
        ("write joe99@try.com", "write joe ninety-nine at try dot com"),
        ("see https://127.0.0.1 now", "see one hundred twenty-seven dot zero dot zero dot one now"),
        ("see http://10.0.0.1:80/, it", "see ten dot zero dot zero dot one colon eighty, it"),
        ("an https:// and so", "an https: slash slash and so"),
        ("see www.1.2", "see double-you double-you double-you dot one dot two"),
    ],
)
def test_addresses(written, expected):
    assert read(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1° C, 2°F", "one degree celsius, two degrees fahrenheit"),
        ("5°K 6°N 7°S", "five degrees kelvin six degrees north seven degrees south"),
        ("8° E 9° W", "eight degrees east nine degrees west"),
        ("-1°", "minus one degree"),
        ("5‰", "five per mille"),
        ("5–6.5 %", "five to six point five percent"),
        ("1'", "one foot"),
        ("6'", "six feet"),
        ("6' 2\" tall", "six feet two tall"),
        ("5'4''", "five feet four"),
        ("3 x 4", "three by four"),
        ("3×4", "three by four"),
        ("3 * 4 = 12", "three times four equals twelve"),
        ("10 − 3 = 7", "ten minus three equals seven"),
        ("3 x 4 equals 12", "three times four equals twelve"),
        ("24/7, 9/11, 50/50", "twenty-four seven, nine eleven, fifty fifty"),
        ("1 9/11", "one and nine elevenths"),
        ("1½ and ½", "one and a half and one half"),
        ("¼ or ⅞", "one quarter or seven eighths"),
        ("+44 555-1234", "plus four four, five five five, one two three four"),
        ("555.1234", "five five five, one two three four"),
        ("(212) 555.1234", "two one two, five five five, one two three four"),
        ("1,001st", "one thousand first"),
        ("22ND 3RD 11th", "twenty-second third eleventh"),
        ("5k", "five thousand"),
        ("5bn", "five billion"),
        ("5 hundred", "five hundred"),
        ("1.5 million", "one point five million"),
        ("2-3", "two to three"),
        ("2 – 3.5", "two to three point five"),
        ("F-16", "eff sixteen"),
        ("MP3 B2B 4K", "em pee three bee two bee four kay"),
        ("ABCD5 Xy5", "abcd five xy five"),
        ("COVID-19", "covid nineteen"),
        (".5", "point five"),
        ("1,2,3", "one, two, three"),
        ("3.1.2", "three point one point two"),
        ("1,234.5", "one thousand, two hundred thirty-four point five"),
        ("No. 5 and Nos. 6", "number five and number six"),
        ("#5, # 6, № 7", "number five, number six, number seven"),
        ("v2.0 and v2", "version two point zero and v two"),
    ],
)
def test_measures_and_numbers(written, expected):
    assert read(written) == expected
