"""The page to type into: plain files, sent as they are, without a build step."""

from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

FOLDER = Path(__file__).parent
ENDINGS = (".js", ".css")
HEADERS = {
    # Nothing comes from elsewhere, and no text can become a script. blob: is the audio that the page itself makes.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "media-src blob:; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

router = APIRouter()


@router.get("/")
async def index() -> Response:
    return FileResponse(FOLDER / "index.html", headers=HEADERS)


@router.get("/page/{name}")
async def part(name: str) -> Response:
    path = FOLDER / name
    if path.parent != FOLDER or path.suffix not in ENDINGS or not path.is_file():
        raise HTTPException(404)
    return FileResponse(path, headers=HEADERS)
