"""A hub on this machine: the few routes that huggingface_hub calls for models, over HTTP."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
import torch
from huggingface_hub import constants

from boxel.data.annotations import Category
from boxel.models import build, save
from boxel.models.thresholds import write_thresholds
from boxel.utils import hub as hub_module
from boxel.utils.files import write_text

WRITER, READER = "hf_writer_0123456789", "hf_reader_0123456789"


@dataclass
class Repo:
    name: str
    private: bool
    commits: dict[str, dict[str, bytes]] = field(
        default_factory=dict
    )  # files by commit, the last one is the newest
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        name = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[name] = files
        self.refs["main"] = name
        return name

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.refs["main"]]


class FakeHub:
    """Repositories in memory; `requests` are all that were made, with the token that each had."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.before_commit = lambda: None

    def add(self, name: str, files: dict[str, bytes], private: bool = False) -> Repo:
        self.repos[name] = Repo(name, private)
        self.repos[name].commit(files)
        return self.repos[name]

    def paths(self, method: str) -> list[str]:
        return [path for verb, path, _ in self.requests if verb == method]


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def answer(self, status: int, body: object = None, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        self.answer(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})

    def handle_request(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append((self.command, path, token))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if token not in (None, WRITER, READER):
            return self.refuse(401, message="Invalid credentials in Authorization header")
        for pattern, act in ROUTES.items():
            method, _, route = pattern.partition(" ")
            if method == self.command and (found := re.fullmatch(route, path)):
                groups = found.groupdict()
                if "repo" in groups:
                    repo = self.hub.repos.get(groups["repo"])
                    if repo is None or (repo.private and token is None):
                        return self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
                    groups["repo"] = repo
                if self.command in ("POST", "PUT") and token == READER:
                    return self.refuse(403, message="you must have write access")
                return act(self, body, **groups)
        return self.refuse(404, "EntryNotFound", f"no route {self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def resolve(self, repo: Repo, revision: str | None) -> str | None:
        name = repo.refs.get(revision or "main", revision)
        if name not in repo.commits:
            self.refuse(404, "RevisionNotFound", "Invalid rev id")
            return None
        return name

    def home(self, _: bytes) -> None:
        self.answer(200)

    def info(self, _: bytes, repo: Repo, revision: str | None = None) -> None:
        if commit := self.resolve(repo, revision):
            files = [{"rfilename": file} for file in repo.commits[commit]]
            self.answer(200, {"id": repo.name, "sha": commit, "private": repo.private, "siblings": files})

    def tree(self, _: bytes, repo: Repo, revision: str) -> None:
        if commit := self.resolve(repo, revision):
            files = repo.commits[commit].items()
            kinds = [
                {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for file, data in files
            ]
            self.answer(200, kinds)

    def file(self, _: bytes, repo: Repo, revision: str, file: str) -> None:
        if commit := self.resolve(repo, revision):
            data = repo.commits[commit].get(file)
            if data is None:
                return self.refuse(404, "EntryNotFound", "no such file")
            etag = hashlib.sha1(data).hexdigest()
            self.answer(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

    def create(self, body: bytes) -> None:
        given = json.loads(body)
        name = f"{given['organization']}/{given['name']}"
        private = given.get("visibility") == "private" or given.get("private", False)
        self.hub.add(name, {".gitattributes": b""}, private)
        self.answer(200, {"url": f"{self.hub.url}/{name}"})

    def validate(self, body: bytes) -> None:
        if "license: wtf" in json.loads(body)["content"]:
            return self.answer(400, {"errors": [{"message": '"license" must be one of [apache-2.0, mit]'}]})
        self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, body: bytes, repo: Repo, revision: str) -> None:
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self.answer(200, {"files": modes})

    def batch(self, body: bytes, repo: Repo) -> None:
        objects = [
            {**item, "actions": {"upload": {"href": f"{self.hub.url}/storage/{item['oid']}"}}}
            for item in json.loads(body)["objects"]
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self.answer(200)

    def commit(self, body: bytes, repo: Repo, revision: str) -> None:
        self.hub.before_commit()
        (_, header), *lines = ((line["key"], line["value"]) for line in map(json.loads, body.splitlines()))
        if header["parentCommit"] != repo.refs["main"]:
            return self.refuse(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(repo.files)
        for key, value in lines:
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                assert key == "deletedFile"
                del files[value["path"]]
        name = repo.commit(files)
        self.answer(200, {"commitUrl": f"{self.hub.url}/{repo.name}/commit/{name}", "commitOid": name})


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
ROUTES = {
    "HEAD /": Handler.home,
    f"GET /api/models/{_REPO}": Handler.info,
    f"GET /api/models/{_REPO}/revision/(?P<revision>.+)": Handler.info,
    f"GET /api/models/{_REPO}/tree/(?P<revision>.+)": Handler.tree,
    f"HEAD /{_REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)": Handler.file,
    f"GET /{_REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)": Handler.file,
    "POST /api/repos/create": Handler.create,
    "POST /api/validate-yaml": Handler.validate,
    f"POST /api/models/{_REPO}/preupload/(?P<revision>.+)": Handler.preupload,
    f"POST /{_REPO}.git/info/lfs/objects/batch": Handler.batch,
    "PUT /storage/(?P<oid>[0-9a-f]+)": Handler.store,
    f"POST /api/models/{_REPO}/commit/(?P<revision>.+)": Handler.commit,
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[FakeHub]:
    """A hub that the client of this process uses, without a token and with an empty cache."""
    handler = type("Bound", (Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.hub = FakeHub(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", handler.hub.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", handler.hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_URL_HOSTS", frozenset({"127.0.0.1"}), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr(hub_module, "_downloaded", {})
    yield handler.hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(tmp_path, tiny_boxinst):
    """The folder of a run of BoxInst, with all that a training leaves there."""
    torch.manual_seed(0)
    folder = tmp_path / "home" / "anna" / "runs" / "cats"
    network = {**tiny_boxinst, "weights": f"{tmp_path}/home/anna/imagenet.pth", "hint_weight": 1.0}
    data = {"class_list": "C:\\\\Users\\\\anna\\\\classes.txt", "rename": {"car/van": "car"}}
    settings = {"method": "boxinst", "init": f"{tmp_path}/home/anna/first", "data": data, "label": None}
    settings |= {"hints": "../secret-customer/boxcaseg", "model": network}
    model = build("boxinst", 2, tiny_boxinst)
    save(model, folder, settings, [Category(17, "cat", "animal"), Category(3, "car")])
    write_thresholds({"all": 0.5, "by_class": {"cat": 0.25}}, folder)
    write_text(
        folder / "metrics.json", json.dumps({"step": 120, "val/mask_AP": 0.31254, "val/mask_fill": 0.5})
    )
    source = {
        "path": f"{tmp_path}/home/anna/boxes.json",
        "sha256": "e3b0",
        "images": 40,
        "instances": 206,
        "masks": 10,
    }
    record = {
        **{
            "boxel": "0.1.0",
            "command": f"boxel train boxinst {source['path']}",
            "folder": f"{tmp_path}/home/anna",
        },
        **{
            "date": "2026-11-30T10:20:52+00:00",
            "python": "3.11.7",
            "platform": "Linux-anna-laptop",
            "seed": 0,
        },
        **{"method": "boxinst", "recipe": f"{tmp_path}/home/anna/mine.yaml", "device": "1 x cpu"},
        "versions": {"torch": "2.14.1"},
        "inputs": {
            "data": [source],
            "init": {"path": "boxinst"},
            "images": {"path": "photos", "sha256": "aa11"},
        },
        "training": {"images": 40, "instances": 206, "masks": 10},
        "validation": {"images": 9, "instances": 31, "masks": 31},
        "resumed": [{"folder": f"{tmp_path}/home/anna", "platform": "Linux-anna-laptop"}],
    }
    write_text(folder / "run.json", json.dumps(record))
    for name in (
        "checkpoints/last.ckpt",
        "samples/0.jpg",
        "hints.json",
        "hints.sqlite",
        "report.html",
        "metrics.csv",
    ):
        write_text(folder / name, "private")
    return folder
