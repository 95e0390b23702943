"""The images that annotation tools send or name: from places that are allowed, and of limited size."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import os
import re
import string
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import parse_qs, quote, unquote, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import numpy as np
from numpy.typing import NDArray

from boxel.data.formats.names import stay_inside
from boxel.data.images import MAX_PIXELS, ImageError, image_size, read_image
from boxel.review.guard import MAX_IMAGE
from boxel.utils.errors import BoxelError, UsageError, one_line

logger = logging.getLogger(__name__)

_MAX_REDIRECTS = 4
_TIMEOUT = 30  # seconds without an answer


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *args: object, **kwargs: object) -> None:
        """Follow no redirect: the host that it leads to is checked first."""


_OPENER = build_opener(_NoRedirect)


def decode_base64(text: str, name: str) -> NDArray[np.uint8]:
    """Decode an image file that a request holds as base64, (H, W, 3) uint8 RGB."""
    try:
        return decode_file(base64.b64decode(text, validate=True), name)
    except ValueError as error:
        raise BoxelError(f"{name} is not base64 ({error}); send the bytes of an image file.") from error


def decode_file(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode the content of an image file, (H, W, 3) uint8 RGB, unless its header states too many pixels."""
    if len(content) > MAX_IMAGE:
        raise BoxelError(f"{name} has more than {MAX_IMAGE:,} bytes; shrink it.")
    with tempfile.TemporaryDirectory(prefix="boxel-serve-") as folder:
        path = Path(folder, "image")
        path.write_bytes(content)
        try:
            width, height = image_size(path)
            if width * height > max_pixels:
                raise BoxelError(
                    f"{name} has {width} x {height} pixels, more than {max_pixels:,}; shrink it."
                )
            return read_image(path)
        except ImageError as error:
            raise BoxelError(str(error).replace(str(path), name)) from None


class ImageSource:
    """The images that Label Studio names by address.

    Local files are read in one folder, and http addresses only of hosts that are allowed, also after a redirect. Label
    Studio alone receives its key: the variable `LABEL_STUDIO_API_KEY`, or else what it states.

    Args:
        folder: Folder of local files; None for none.
        hosts: Hosts that images may come from. The first that is an address, e.g. `http://localhost:8080`, is taken for
            Label Studio until it states its own.
        trusts: Whether the address that is stated as Label Studio's is allowed, too.
    """

    def __init__(self, folder: str | Path | None, hosts: Sequence[str], trusts: bool) -> None:
        self.folder, self.trusts = Path(folder).resolve() if folder else None, trusts
        addresses = [host for host in hosts if "://" in host]
        bare = [f"http{s}://{host}" for host in hosts if host not in addresses for s in ("", "s")]
        try:
            self.places = {_find_place(Request(address)) for address in [*addresses, *bare]}
        except ValueError as error:
            raise UsageError(
                f"`hosts` is {','.join(hosts)} ({error}); give hosts or http addresses."
            ) from error
        self.studio = (addresses[0] if addresses else "", "")  # its address and its key

    def state(self, address: str, key: str) -> None:
        """Take an address for Label Studio's, if it is allowed, and its key."""
        try:
            place = _find_place(Request(address))
        except ValueError as error:
            raise BoxelError(f"`hostname` is {one_line(address)} ({error}); give an http address.") from error
        if self.trusts or place in self.places:
            self.studio = (address.rstrip("/"), key)
        else:
            logger.warning("%s is not taken for Label Studio; give `token`, or allow it with `hosts`", place)

    def read(self, address: str, task: int | None = None) -> NDArray[np.uint8]:
        """Read the image of an address in a task, (H, W, 3) uint8 RGB.

        Raises:
            BoxelError: The address is not allowed, cannot be reached or has no image.
        """
        if address.startswith("data:"):
            return decode_base64(unquote(address.partition(";base64,")[2]), "the data URI")
        name = one_line(address)
        try:
            parts = urlsplit(address)
            if parts.path.rstrip("/") == "/data/local-files" and not parts.netloc:
                file = self._find_file(parse_qs(parts.query).get("d", [""])[-1])
                if file is not None:
                    return read_image(file)
            return decode_file(self._fetch(self._complete(address, task)), name)
        except (OSError, http.client.HTTPException, ValueError) as error:
            needs_key = isinstance(error, HTTPError) and error.code in (401, 403)
            remedy = "set the variable LABEL_STUDIO_API_KEY" if needs_key else "check the address"
            reason = one_line(f"{type(error).__name__}: {error}")
            raise BoxelError(f"{name} cannot be fetched ({reason}); {remedy}.") from error

    def _find_file(self, stated: str) -> Path | None:
        """Return the local file of a name; None if the folder does not have it."""
        if self.folder is None:
            return None
        path = (self.folder / stay_inside(stated)).resolve()
        return path if path.is_relative_to(self.folder) and path.is_file() else None

    def _complete(self, address: str, task: int | None) -> str:
        """Return the http address of an image."""
        if re.match("(s3|gs|azure-blob):", address):
            coded = base64.urlsafe_b64encode(address.encode()).decode()
            address = f"/tasks/{task}/presign/?fileuri={coded}"
        if not urlsplit(address).scheme:
            if not self.studio[0]:
                raise BoxelError(
                    "Label Studio has not stated its address; open its model settings, or give `hosts`."
                )
            path = address.lstrip("/")
            address = f"{self.studio[0]}/{'data/' if path.startswith('upload/') else ''}{path}"
        return quote(address, safe=string.punctuation)

    def _fetch(self, address: str) -> bytes:
        for _ in range(_MAX_REDIRECTS):
            request = Request(address)
            place, (studio, key) = _find_place(request), self.studio
            is_studio = bool(studio) and place == _find_place(Request(studio))
            if not is_studio and place not in self.places:
                raise BoxelError(f"{place} is not a host that images may come from; allow it with `hosts`.")
            if is_studio and (key := os.environ.get("LABEL_STUDIO_API_KEY") or key):
                request.add_header("Authorization", _authorize(studio, key))
            try:
                with _OPENER.open(request, timeout=_TIMEOUT) as answer:
                    return bytes(answer.read(MAX_IMAGE + 1))
            except HTTPError as error:
                if error.code not in (301, 302, 303, 307, 308):
                    raise
                address = urljoin(address, error.headers["location"])
        raise ValueError(f"more than {_MAX_REDIRECTS} redirects")


def _find_place(request: Request) -> str:
    """Return the host and the port that a request goes to."""
    host = (request.host or "").lower()
    if request.type not in ("http", "https") or not host:
        raise ValueError("not an http address")
    return host if re.search(r":\d+$", host) else f"{host}:{443 if request.type == 'https' else 80}"


def _authorize(studio: str, key: str) -> str:
    """Return the header for a key; a personal access token is exchanged for one of a few minutes first."""
    if key.count(".") != 2:
        return f"Token {key}"
    body, headers = json.dumps({"refresh": key}).encode(), {"Content-Type": "application/json"}
    with _OPENER.open(Request(f"{studio}/api/token/refresh", body, headers), timeout=_TIMEOUT) as answer:
        given = json.loads(answer.read(1 << 16))
    if not isinstance(given, dict) or not isinstance(given.get("access"), str):
        raise ValueError("Label Studio gave no access token for its key")
    return f"Bearer {given['access']}"
