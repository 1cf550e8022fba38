"""Answers that are errors, in OpenAI's form."""

from fastapi.responses import JSONResponse


class RefusalError(Exception):
    """An answer that is an error: its status, what is wrong and what to do, the parameter that is wrong."""

    def __init__(self, status: int, message: str, param: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.param, self.headers = status, param, headers


class BrokenOffError(Exception):
    """An answer that had begun cannot be finished; the log says why."""


def answer(error: RefusalError) -> JSONResponse:
    """The error as OpenAI's clients read it."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    body = {"message": str(error), "type": kind, "param": error.param, "code": None}
    return JSONResponse({"error": body}, error.status, error.headers)
