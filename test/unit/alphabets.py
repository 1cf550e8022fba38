"""Alphabets of other languages than English."""

MARKS = list("_-!'(),.:;? ")
GERMAN = MARKS + list("abcdefghijklmnopqrstuvwxyzäöüß")
RUSSIAN = MARKS + list("абвгдеёжзийклмнопрстуфхцчшщъыьэюя")
