"""english_cleaners_v2 reads dates, years and times of day in every form they are written in."""

import pytest
from english import read

MONTHS = {
    "Jan": "January", "Feb": "February", "Mar": "March", "Apr": "April", "May": "May", "Jun": "June", "Jul": "July",
    "Aug": "August", "Sep": "September", "Oct": "October", "Nov": "November", "Dec": "December",
}  # fmt: skip
DAYS = """Mon Monday, Tue Tuesday, Tues Tuesday, Wed Wednesday, Thu Thursday, Thur Thursday, Thurs Thursday, Fri Friday,
Sat Saturday, Sun Sunday""".replace("\n", " ").split(", ")


def check(written, expected):
    assert read(written) == expected.lower()


@pytest.mark.parametrize(("number", "short"), [*enumerate(MONTHS, start=1)])
def test_months(number, short):
    month = MONTHS[short]
    for written in (month, short, f"{short}."):
        check(f"On {written} 3, 1998", f"On {month} third, nineteen ninety-eight")
        check(f"the 3rd of {written} 1998", f"the third of {month} nineteen ninety-eight")
        check(f"In {written} 1998", f"In {month} nineteen ninety-eight")
    check(f"1998-{number:02}-03", f"{month} third, nineteen ninety-eight")
    check(f"{number}/3/1998", f"{month} third, nineteen ninety-eight")
    check(f"3.{number}.1998", f"{month} third, nineteen ninety-eight")


@pytest.mark.parametrize("pair", DAYS)
def test_weekdays_before_a_date_only(pair):
    short, day = pair.split()
    for written in (short, f"{short}."):
        check(f"On {written}, May 4", f"On {day}, May fourth")
        check(f"On {written} the 4th", f"On {day} the fourth")
        check(f"My {written}, it is", f"My {written}, it is")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Sept. 5", "September fifth"),
        ("May 5th", "May fifth"),
        ("May 31", "May thirty-first"),
        ("May 32", "May thirty-two"),
        ("May 05", "May fifth"),
        ("May 5:30", "May five thirty"),
        ("May 5%", "May five percent"),
        ("May 5 1998", "May fifth nineteen ninety-eight"),
        ("5 May", "the fifth of May"),
        ("5th May, 2001", "the fifth of May, two thousand one"),
        ("the 5th of May", "the fifth of May"),
        ("5 Mayors", "five mayors"),
        ("Marching 5", "marching five"),
        ("2024-12-31", "December thirty-first, twenty twenty-four"),
        ("2024-13-31", "twenty twenty-four thirteen to thirty-one"),
        ("13/3/1998", "March thirteenth, nineteen ninety-eight"),
        ("12/3/98", "December third, ninety-eight"),
        ("3.12.1998", "December third, nineteen ninety-eight"),
        ("12/31/05", "December thirty-first, zero five"),
    ],
)
def test_dates(written, expected):
    check(written, expected)


@pytest.mark.parametrize("written", ["13/13/1998", "0/3/1998", "12/32/1998", "32.12.1998", "3.12.98"])
def test_what_is_no_date_is_not_read_as_one(written):
    assert not any(month.lower() in read(written) for month in MONTHS.values())


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("the 1990s", "the nineteen nineties"),
        ("the 1990's", "the nineteen nineties"),
        ("the 2000s", "the two thousands"),
        ("the 1910s", "the nineteen tens"),
        ("the 90s", "the nineties"),
        ("the ’20s", "the twenties"),
        ("the '60's", "the sixties"),
        ("1914-1918", "nineteen fourteen to nineteen eighteen"),
        ("1914 – 18", "nineteen fourteen to eighteen"),
        ("1999—2001", "nineteen ninety-nine to two thousand one"),
        ("44 BC", "forty-four bee see"),
        ("44 B.C. it", "forty-four bee see it"),
        ("300 BCE", "three hundred bee see ee"),
        ("300 B.C.E. it", "three hundred bee see ee it"),
        ("1066 AD", "ten sixty-six ay dee"),
        ("70 A.D. it", "seventy ay dee it"),
        ("500 CE", "five hundred see ee"),
        ("AD 1066", "ay dee ten sixty-six"),
        ("A.D. 79", "ay dee seventy-nine"),
    ],
)
def test_years_decades_and_eras(written, expected):
    check(written, expected)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("3:45", "three forty-five"),
        ("3:05", "three oh five"),
        ("3:10", "three ten"),
        ("3:00", "three o'clock"),
        ("12:00", "twelve o'clock"),
        ("13:00", "thirteen hundred"),
        ("03:00", "three hundred"),
        ("00:00", "zero hundred"),
        ("0:30", "zero thirty"),
        ("24:00", "twenty-four hundred"),
        ("3:00pm", "three pee em"),
        ("3:45:01", "three forty-five and one second"),
        ("3:45:02", "three forty-five and two seconds"),
        ("3:45:00", "three forty-five and zero seconds"),
        ("3:00:10", "three o'clock and ten seconds"),
        ("3 AM", "three ay em"),
        ("03 am", "three ay em"),
        ("12pm", "twelve pee em"),
        ("7.05 p.m. it", "seven oh five pee em it"),
        ("at 5 p.m.", "at five pee em."),
        ("at 5 P.M. it", "at five pee em it"),
        ("at 5:30 a.m.", "at five thirty ay em."),
        ("9am-5pm", "nine ay em to five pee em"),
        ("9:00-10:30", "nine o'clock to ten thirty"),
        ("9 a.m. – 5 p.m. it", "nine ay em to five pee em it"),
        ("13 p.m. it", "thirteen pee em it"),
    ],
)
def test_times_of_day(written, expected):
    check(written, expected)
