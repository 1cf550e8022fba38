"""english_cleaners_v2 knows every unit, currency, sign, abbreviation, month and weekday by its own words."""

import pytest
from english import read

UNITS = """km kilometer, m meter, cm centimeter, mm millimeter, nm nanometer, mi mile, yd yard, yds yard, kg kilogram,
g gram, mg milligram, t ton, lb pound, lbs pound, oz ounce, l liter, L liter, ml milliliter, mL milliliter, gal gallon,
s second, sec second, ms millisecond, min minute, mins minute, h hour, hr hour, hrs hour, yr year, yrs year, W watt,
kW kilowatt, MW megawatt, kWh kilowatt hour, V volt, A ampere, mAh milliampere hour, J joule, kJ kilojoule,
kcal kilocalorie, cal calorie, N newton, Pa pascal, hPa hectopascal, dB decibel, B byte, kB kilobyte, KB kilobyte,
MB megabyte, GB gigabyte, TB terabyte, ha hectare, px pixel, µm micrometer"""
OF_A_TIME = """kbps kilobit second, Mbps megabit second, Gbps gigabit second, mph mile hour, kph kilometer hour,
rpm revolution minute"""
SIGNS = """& and, % percent, + plus, = equals, @ at, ° degrees, × times, ÷ divided by, < less than, > greater than,
£ pounds, € euros, ¥ yen, $ dollars, § section, # hash, / slash, ~ about, ± plus or minus, ≈ about, © copyright,
\\ backslash"""
TITLES = """mr mister, mrs missus, ms miz, dr doctor, drs doctors, prof professor, rev reverend, gen general, maj major,
col colonel, capt captain, lt lieutenant, sgt sergeant, hon honorable, gov governor, sen senator, rep representative,
pres president, messrs messieurs, mt mount, ft fort, esq esquire, jr junior, sr senior, co company, corp corporation,
inc incorporated, ltd limited, vs versus, etc et cetera, approx approximately, dept department, est established,
ave avenue, blvd boulevard, rd road, hwy highway, tel telephone, govt government, assn association, univ university"""
BEFORE_NUMBERS = "vol volume, fig figure, figs figures, ch chapter, pp pages, p page, ed edition, sec section"


def pairs(table):
    return [entry.split(maxsplit=1) for entry in table.replace("\n", " ").split(", ")]


@pytest.mark.parametrize(("unit", "name"), pairs(UNITS))
def test_units(unit, name):
    assert read(f"It is 1 {unit} and 2 {unit}.") == f"it is one {name} and two {name}s."


def test_units_with_a_plural_of_their_own_or_none():
    assert read("It is 1 ft and 2 ft.") == "it is one foot and two feet."
    for unit, name in pairs("Hz hertz, kHz kilohertz, MHz megahertz, GHz gigahertz, psi p s i"):
        assert read(f"It is 1 {unit} and 2 {unit}.") == f"it is one {name} and two {name}."
    for unit, name in pairs(OF_A_TIME):
        what, time = name.split()
        assert read(f"It is 1 {unit} and 2 {unit}.") == f"it is one {what} per {time} and two {what}s per {time}."


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2 m²", "two square meters"),
        ("2 m2", "two square meters"),
        ("1 m³", "one cubic meter"),
        ("3 m3", "three cubic meters"),
        ("5 m/s", "five meters per second"),
        ("5 m/s²", "five meters per second squared"),
        ("5 m/s2", "five meters per second squared"),
        ("5 g/m³", "five grams per meter cubed"),
        ("5 g/cm3", "five grams per centimeter cubed"),
        ("5 m²/s", "five square meters per second"),
        ("5km", "five kilometers"),
        ("5-km", "five kilometers"),
        ("1.5 km", "one point five kilometers"),
        (".5 km", "zero point five kilometers"),
        ("5 – 6 km", "five to six kilometers"),
        ("5-6.5 km", "five to six point five kilometers"),
        ("5 kms", "five kms"),
        ("the 5 g's", "the five g's"),
    ],
)
def test_powers_and_quotients_of_units(written, expected):
    assert read(written) == expected


@pytest.mark.parametrize(("sign", "words"), pairs(SIGNS))
def test_signs(sign, words):
    assert read(f"so {sign} so") == f"so {words} so"


@pytest.mark.parametrize("sign", list("_•^|*®™"))
def test_signs_that_are_not_said(sign):
    assert read(f"so {sign} so") == "so so"
    assert read(f"so{sign} so") == "so so"


@pytest.mark.parametrize(
    ("sign", "one", "several", "part", "parts"),
    [
        ("$", "dollar", "dollars", "cent", "cents"),
        ("£", "pound", "pounds", "penny", "pence"),
        ("€", "euro", "euros", "cent", "cents"),
        ("¥", "yen", "yen", "sen", "sen"),
        ("₹", "rupee", "rupees", "paisa", "paise"),
        ("₩", "won", "won", "jeon", "jeon"),
        ("₽", "ruble", "rubles", "kopeck", "kopecks"),
    ],
)
def test_currencies(sign, one, several, part, parts):
    assert read(f"{sign}1.01, {sign}2.10, {sign}0.01, {sign}0.02, {sign}0.") == (
        f"one {one}, one {part}, two {several}, ten {parts}, one {part}, two {parts}, zero {several}."
    )
    assert read(f"a {sign}5 note") == f"a five {one} note"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("$2.00", "two dollars"),
        ("$00.50", "fifty cents"),
        ("$1.5", "one point five dollars"),
        ("$1.505", "one point five zero five dollars"),
        ("$ 5", "five dollars"),
        ("-$5", "minus five dollars"),
        ("−$5", "minus five dollars"),
        ("$1,000, then", "one thousand dollars, then"),
        ("$5, then", "five dollars, then"),
        ("$5-$6, then", "five to six dollars, then"),
        ("$5 million-$6 billion", "five million to six billion dollars"),
        ("a $2 million house", "a two million dollar house"),
        ("a $2 million", "a two million dollars"),
        ("a $2.50 coffee", "a two dollars, fifty cents coffee"),
        ("US$1", "one you ess dollar"),
        ("A$1", "one Australian dollar"),
        ("AU$2", "two Australian dollars"),
        ("C$2", "two Canadian dollars"),
        ("CA$2 million", "two million Canadian dollars"),
        ("NZ$2", "two New Zealand dollars"),
        ("HK$2-3", "two to three Hong Kong dollars"),
        ("USD 2", "two dollars"),
        ("GBP2", "two pounds"),
        ("2 EUR", "two euros"),
        ("2 JPY", "two yen"),
        ("1¢ and 2 ¢", "one cent and two cents"),
        *((f"$5{short}", f"five {scale} dollars") for short, scale in pairs(
            "k thousand, K thousand, m million, M million, mn million, bn billion, B billion, b billion, tn trillion,"
            " T trillion,  hundred hundred,  thousand thousand,  million million,  billion billion,  trillion trillion"
        )),
    ],
)  # fmt: skip
def test_amounts_of_money(written, expected):
    assert read(written) == expected.lower()


@pytest.mark.parametrize(("short", "word"), pairs(TITLES))
def test_titles_and_other_abbreviations(short, word):
    for written in (short, short.capitalize(), short.upper()):
        assert read(f"The {written}. of it {written}.") == f"the {word} of it {word}."
    assert read(f"x{short}. of it") == f"x{short}. of it"


@pytest.mark.parametrize(("short", "word"), pairs(BEFORE_NUMBERS))
def test_abbreviations_before_numbers_only(short, word):
    assert read(f"See {short}. 5 and {short.capitalize()}.6.") == f"see {word} five and {word} six."
    assert read(f"See {short}. five") == f"see {short}. five"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("e.g. so", "for example so"),
        ("i.e. so", "that is so"),
        ("a.k.a. so", "also known as so"),
        ("w/o so", "without so"),
        ("w/ so", "with so"),
        ("w/so", "w slash so"),
        ("a Ph.D. so", "a pee aitch dee so"),
        ("a Ph.D.", "a pee aitch dee."),
        ("and/or", "and or"),
        ("St. Mary and Main St. here", "saint mary and main street here"),
        ("Main St.", "main street"),
        ("Main St, here", "main street, here"),
        ("Main St of it", "main street of it"),
        ("It is 2 ft. In 2020 Ms. Fox saw it.", "it is two feet. in twenty twenty miz fox saw it."),
    ],
)
def test_dotted_abbreviations_and_streets(written, expected):
    assert read(written) == expected
