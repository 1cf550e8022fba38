"""What the service's page is made of, without a browser: its files and no others, the pictures of what is spoken."""

import base64

import httpx2
import numpy as np
import pytest
import torch

from tacotron2.model import Utterance
from tacotron2.synthesizer import Spoken

pytest.importorskip("fastapi", reason="requirement-serve.txt is not installed")
details = pytest.importorskip("tools.serve.details")

pytest_plugins = ["serving"]


def points(picture: dict) -> np.ndarray:
    data = np.frombuffer(base64.b64decode(picture["data"]), np.uint8)
    return data.reshape(picture["rows"], picture["columns"])


def test_the_page_has_its_own_files_alone(serve):
    address = serve()
    for name, status in (
        ("page.js", 200), ("page.css", 200), ("__init__.py", 404), ("index.html", 404), ("nothing.js", 404),
        ("..%2Fdetails.py", 404), ("%2Fetc%2Fpasswd", 404),
    ):  # fmt: skip
        answer = httpx2.get(f"{address}/page/{name}")
        assert answer.status_code == status, name
        assert ("default-src 'none'" in answer.headers.get("Content-Security-Policy", "")) == (status == 200)


def test_pictures_of_a_piece():
    """Bands and symbols from row to row, time from column to column."""
    mel = torch.tensor([[-11.5, 0.5, -5.5], [-11.5, -11.5, -11.5]])
    alignment = torch.tensor([[1.0, 0.0], [0.2, 0.8], [0.0, 2.0]])  # of 3 steps to 2 symbols
    utterance = Utterance(mel, 3, True, alignment, torch.tensor([0.0, 0.25, 1.0]), 1.0, 1.0)
    told = details.describe(Spoken("Hi.", utterance, "is bad"))
    assert (told["text"], told["flaw"], told["frames"], told["gate"]) == ("Hi.", "is bad", 3, [0, 0.25, 1])
    assert points(told["mel"]).tolist() == [[0, 255, 128], [0, 0, 0]]
    assert points(told["alignment"]).tolist() == [[255, 51, 0], [0, 204, 255]]


def test_a_picture_without_any_difference_is_dark():
    assert points(details.picture(torch.full((2, 2), -11.5), -11.5, -11.5)).max() == 0


def test_a_picture_is_as_bright_as_its_range_and_no_brighter():
    told = details.picture(torch.tensor([[0.1, 0.2, 0.15, 0.0, 0.3], [0.2, 0.1, 0.1, 0.1, 0.1]]), 0.1, 0.2)
    assert points(told).tolist() == [[0, 255, 128, 0, 255], [255, 0, 0, 0, 0]]
    assert (told["rows"], told["columns"]) == (2, 5)
