"""A server on this machine that speaks the part of the Hugging Face hub's interface that is used.

Repositories with branches and commits in memory; files arrive by Git LFS or in the commit itself, as the server says.
Its newer storage, Xet, it does not have: ``HF_HUB_DISABLE_XET=1`` has the client do without.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_a_token_of_these_tests"


class Hub:
    """What the server holds. repositories: by name, branches: by name, the commits, each of files by name."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, list[tuple[str, dict[str, bytes]]]]] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        hub = self

        class Handler(_Handler):
            held = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def commit(self, name: str, files: dict[str, bytes], branch: str = "main") -> str:
        commits = self.repositories.setdefault(name, {}).setdefault(branch, [])
        whole = {**(commits[-1][1] if commits else {}), **files}
        oid = hashlib.sha1(repr((name, branch, len(commits), sorted(files))).encode()).hexdigest()
        commits.append((oid, whole))
        return oid

    def at(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        branches = self.repositories[name]
        if branches.get(revision):
            return branches[revision][-1]
        every = (commit for commits in branches.values() for commit in commits)
        return next((commit for commit in every if commit[0] == revision), None)


class _Handler(BaseHTTPRequestHandler):
    held: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _answer(self) -> None:
        path = urlsplit(self.path).path.strip("/")
        self.held.asked.append(f"{self.command} /{path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [unquote(part) for part in path.split("/")]
        if parts[0] == "objects":  # as a storage service: its address was the permission
            self.held.objects[parts[1]] = body
            self._send(200, b"")
            return
        token = self.headers.get("Authorization")
        if token not in (None, f"Bearer {TOKEN}"):
            self._refuse(401, None, "Invalid credentials in Authorization header")
        elif self.command in ("POST", "PUT") and token is None:
            self._refuse(401, None, "Access is denied")
        elif parts[:2] == ["api", "models"]:
            self._of_repository("/".join(parts[2:4]), parts[4:], body)
        elif parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            known = name in self.held.repositories
            self.held.repositories.setdefault(name, {}).setdefault("main", [])
            self._json(409 if known else 200, {"url": f"{self.held.url}/{name}", "id": name})
        elif parts == ["api", "validate-yaml"]:
            self._json(200, {"errors": [], "warnings": []})
        elif parts[2:] == ["info", "lfs", "objects", "batch"]:
            objects = json.loads(body)["objects"]
            actions = [
                {**one, "actions": {"upload": {"href": f"{self.held.url}/objects/{one['oid']}"}}} for one in objects
            ]
            self._json(200, {"transfer": "basic", "objects": actions})
        elif parts[2:3] == ["resolve"]:
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._refuse(404, None, f"no such address: {path}")

    def _of_repository(self, name: str, rest: list[str], body: bytes) -> None:
        if name not in self.held.repositories:
            self._refuse(404, "RepoNotFound", "Repository not found")
        elif self.command == "GET" and rest[:1] in ([], ["revision"]):
            self._info(name, rest[1] if rest else "main")
        elif rest[:1] == ["branch"]:
            known = self.held.repositories[name].setdefault(rest[1], list(self.held.repositories[name]["main"]))
            self._json(200, {"commits": len(known)})
        elif rest[:1] == ["preupload"]:
            files = json.loads(body)["files"]
            told = [
                {"path": f["path"], "uploadMode": "lfs" if _is_large(f["path"]) else "regular", "shouldIgnore": False}
                for f in files
            ]
            self._json(200, {"files": told})
        elif rest[:1] == ["commit"]:
            self._commit(name, rest[1], body)
        else:
            self._refuse(404, None, f"no such address: {rest}")

    def _info(self, name: str, revision: str) -> None:
        found = self.held.at(name, revision)
        if found is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        oid, files = found
        self._json(200, {"id": name, "modelId": name, "sha": oid, "siblings": [{"rfilename": f} for f in files]})

    def _commit(self, name: str, branch: str, body: bytes) -> None:
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.held.objects[value["oid"]]
        oid = self.held.commit(name, files, branch)
        self._json(200, {"commitUrl": f"{self.held.url}/{name}/commit/{oid}", "commitOid": oid, "success": True})

    def _file(self, name: str, revision: str, file: str) -> None:
        if name not in self.held.repositories:
            self._refuse(404, "RepoNotFound", "Repository not found")
            return
        found = self.held.at(name, revision)
        if found is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        oid, files = found
        if file not in files:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        digest = hashlib.sha256(files[file]).hexdigest()
        self._send(200, files[file], {"X-Repo-Commit": oid, "ETag": f'"{digest}"'})

    def _refuse(self, status: int, code: str | None, message: str) -> None:
        self._json(status, {"error": message}, {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})})

    def _json(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".semdev"))
