"""The Hub as we need it: what it says of a file, its bytes from any place on, and what a refusal means.

huggingface_hub makes the addresses and sessions (tokens, proxies, mirrors, offline mode). Its own transfer
is not used: it cannot be stopped within a second, and it tells its progress to tqdm only.
"""

import math
import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from .. import __version__
from ..errors import DownloadError
from .registry import REGISTRY_NAME, RemoteFile

_CHUNK = 65536  # bytes; small enough that a slow line still shows signs of life
_ON = ("1", "on", "yes", "true")
_ELSEWHERE = f"set HF_ENDPOINT to a mirror or name another repository in {REGISTRY_NAME}"
_TOKEN = "set HF_TOKEN to a token of yours (huggingface.co/settings/tokens) or run 'hf auth login'"


class Trouble(Exception):
    """What may pass by itself. The text is for the user, should it not.

    `wait` is how many seconds the server asks for.
    """

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


@dataclass(frozen=True)
class Offer:
    """What the server says of a file; None for what it does not say."""

    size: int | None  # bytes
    etag: str | None

    @property
    def sha256(self) -> str | None:
        """Files kept outside git (LFS, Xet) are named by their hash."""
        etag = (self.etag or "").lower()
        return etag if len(etag) == 64 and not etag.strip("0123456789abcdef") else None


class Hub:
    """One server. Methods raise Trouble for what is worth another try, DownloadError for what is not."""

    def __init__(self, token: str | None = None, timeout: float = 15.0) -> None:
        """`timeout` is in seconds of silence. DownloadError without huggingface_hub or when offline."""
        self._hub, self._utils, self._errors = (_library(name) for name in ("", ".utils", ".errors"))
        self._token, self._timeout = token, timeout
        self.endpoint = _endpoint(_library(".constants").ENDPOINT)
        self.host = urlsplit(self.endpoint).netloc
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in _ON:
            raise DownloadError(_offline())

    def ask(self, file: RemoteFile) -> Offer:
        """What the server has under that name."""
        with self._explained(file):
            told = self._hub.get_hf_file_metadata(self._url(file), token=self._token, timeout=self._timeout)
            return Offer(told.size, told.etag)

    def read(self, file: RemoteFile, start: int) -> Iterator[tuple[int, bytes]]:
        """Pieces of the file with their places, from byte `start`, or from 0 if the server cannot do that."""
        headers = dict(
            self._utils.build_hf_headers(
                token=self._token, library_name="songgen", library_version=__version__
            )
        )
        headers["Accept-Encoding"] = "identity"
        if start:
            headers["Range"] = f"bytes={start}-"
        with self._explained(file):
            session = self._utils.get_session()
            with _response(session, self._url(file), headers, self._timeout) as response:
                if response.status_code != 416:
                    self._utils.hf_raise_for_status(response)
                    place = _first_byte(response, start)
                    if place not in (0, start):
                        raise Trouble(f"{self.host} sends another part of {file.source} than was asked for")
                    for piece in _pieces(response):
                        yield place, piece
                        place += len(piece)
                    return
        if not start:
            raise Trouble(f"{self.host} refuses to send {file.source} (416)")
        yield from self.read(file, 0)

    def _url(self, file: RemoteFile) -> str:
        return str(
            self._hub.hf_hub_url(
                file.repo,
                file.path,
                repo_type=file.repo_type,
                revision=file.revision,
                endpoint=self.endpoint,
            )
        )

    @contextmanager
    def _explained(self, file: RemoteFile) -> Iterator[None]:
        """Whatever the HTTP library of the installed huggingface_hub raises -> DownloadError or Trouble."""
        http_error = self._errors.HfHubHTTPError
        try:
            yield
        except self._errors.OfflineModeIsEnabled as error:
            raise DownloadError(_offline()) from error
        except http_error as error:
            raise self._refusal(error.response, file) from error
        except (OSError, *http_error.__bases__) as error:
            raise Trouble(
                f"the connection to {self.host} failed ({_reason(error)}); check network, proxy and firewall,"
                " or set HF_ENDPOINT to a mirror"
            ) from error
        except ValueError as error:  # a name that huggingface_hub refuses, a size that is no number
            raise DownloadError(
                f"{file.source} cannot be had from {self.host} ({_reason(error)}); {_ELSEWHERE}"
            ) from error

    def _refusal(self, response: Any, file: RemoteFile) -> Exception:
        status, told = int(response.status_code), response.headers
        what = f"{file.source} ({file.revision[:12]})"
        if told.get("X-Error-Code") == "GatedRepo":
            page = f"{self.endpoint}/{'spaces/' if file.repo_type == 'space' else ''}{file.repo}"
            return DownloadError(f"{what} is gated ({status}): ask for access at {page}, then {_TOKEN}")
        if status in (401, 403):
            return DownloadError(
                f"{self.host} does not give out {what} ({status}): the repository is private or gone, or the"
                f" token is wrong; {_TOKEN}, or {_ELSEWHERE}"
            )
        if status in (404, 410):
            return DownloadError(
                f"{what} is not at {self.host} ({status}): it was moved or removed; {_ELSEWHERE}"
            )
        if status == 429:
            wait = _seconds(told.get("Retry-After"))
            when = f"in {wait:.0f} s" if wait else "later"
            return Trouble(
                f"{self.host} limits how much may be asked of it (429); try again {when}, or {_TOKEN}", wait
            )
        if status >= 500 or status == 408:
            return Trouble(
                f"{self.host} fails with {status}; try again later, or set HF_ENDPOINT to a mirror",
                _seconds(told.get("Retry-After")),
            )
        return DownloadError(f"{self.host} refuses {what} with {status}; {_ELSEWHERE}")


def _library(module: str) -> Any:
    try:
        return import_module(f"huggingface_hub{module}")
    except ImportError as error:
        raise DownloadError(
            f"downloading needs huggingface_hub, which does not load ({error}); pip install huggingface_hub"
        ) from error


def _endpoint(default: str) -> str:
    """As the environment says now: huggingface_hub only looks when it is imported. Raises DownloadError."""
    endpoint = (os.environ.get("HF_ENDPOINT") or default).rstrip("/")
    if urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).netloc:
        raise DownloadError(f"HF_ENDPOINT is '{endpoint}'; give an address such as https://huggingface.co")
    return endpoint


def _offline() -> str:
    return (
        "HF_HUB_OFFLINE is set, so nothing is downloaded; unset it, or copy the files into the models folder"
    )


@contextmanager
def _response(session: Any, url: str, headers: dict[str, str], timeout: float) -> Iterator[Any]:
    """A GET whose body is not read yet, of requests (huggingface_hub before 1.0) or httpx."""
    if callable(getattr(session, "stream", None)):
        with session.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            yield response
    else:
        with closing(session.get(url, headers=headers, timeout=timeout, stream=True)) as response:
            yield response


def _first_byte(response: Any, asked: int) -> int:
    """Place of the body in the file, when the bytes from `asked` on were asked for."""
    if response.status_code != 206:
        return 0
    told = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(told[1]) if told else asked


def _pieces(response: Any) -> Iterator[bytes]:
    if hasattr(response, "iter_content"):
        yield from response.iter_content(_CHUNK)
    else:
        yield from response.iter_bytes()


def _reason(error: BaseException) -> str:
    """The innermost cause, which is what the operating system said, in a few words."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:120]


def _seconds(retry_after: str | None) -> float | None:
    """Seconds or a date -> seconds from now."""
    try:
        seconds = float(retry_after or "")
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(retry_after or "")
    except (TypeError, ValueError):
        return None
    return max((when - datetime.now(timezone.utc)).total_seconds(), 0.0)
