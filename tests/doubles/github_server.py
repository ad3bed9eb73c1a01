"""A GitHub double: the Git Data API and smart HTTP over a real bare repository.

`git clone` of that repository shows what was pushed. The answers are held against GitHub's published
description in tests/contract/test_github_schema.py.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.doubles.faults import Call, Double, Reply

TOKEN = "token-of-the-double"
DOCS = "https://docs.github.com/rest"
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
TREE_LIMIT = 2_500_000

Handler = Callable[["GitHubServer", Call, re.Match[str]], Reply]


class Refusal(Exception):
    """An error answer in GitHub's form."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(status, {"message": message, "documentation_url": DOCS, "status": str(status)})


class GitHubServer(Double):
    """Serves one repository, `octo/records`, out of a bare one at `path`."""

    name = "octo/records"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._sign = hashlib.sha256(str(path).encode()).hexdigest()[:8]
        self.git("init", "--bare", "--quiet", "--initial-branch=main", str(path))
        self.git("config", "http.receivepack", "true")

    @property
    def api(self) -> str:
        return f"{self.url}/repos/{self.name}"

    def git(self, *args: str, data: bytes | None = None, env: dict[str, str] | None = None) -> bytes:
        """Run git in the bare repository."""
        keep = {"PATH": os.environ["PATH"], "GIT_DIR": str(self.path), "GIT_CONFIG_GLOBAL": os.devnull}
        done = subprocess.run(["git", *args], input=data, capture_output=True, env=keep | (env or {}), check=False)
        if done.returncode:
            raise Refusal(422, done.stderr.decode("utf-8", "replace").strip() or "git refused")
        return done.stdout

    def sha(self, rev: str) -> str:
        """The full sha of a revision, or "" when there is none."""
        try:
            return self.git("rev-parse", "--verify", "--quiet", "--end-of-options", rev).decode().strip()
        except Refusal:
            return ""

    def answer(self, call: Call) -> Reply:
        if call.path.startswith(f"/{self.name}.git/"):
            return self._smart(call)
        if call.path.startswith("/archive/"):  # GitHub's download host, whose links carry their own signature
            return self._download(call)
        if call.headers.get("authorization", "").split(" ")[-1] != TOKEN:
            return Refusal(401, "Bad credentials").reply
        for method, pattern, handler in ROUTES:
            if method == call.method and (match := re.fullmatch(f"/repos/{self.name}{pattern}", call.path)):
                try:
                    return handler(self, call, match)
                except Refusal as refusal:
                    return refusal.reply
        return Refusal(404, "Not Found").reply

    def _smart(self, call: Call) -> Reply:
        """`git clone`, `fetch` and `push` through git's own server program."""
        login = base64.b64encode(f"octo:{TOKEN}".encode()).decode()
        if call.headers.get("authorization") != f"Basic {login}":
            return Reply(401, b"", {"WWW-Authenticate": 'Basic realm="double"'})
        env = {
            "GIT_PROJECT_ROOT": str(self.path.parent),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": f"/{self.path.name}/" + call.path.removeprefix(f"/{self.name}.git/"),
            "QUERY_STRING": "&".join(f"{name}={value}" for name, value in call.query.items()),
            "REQUEST_METHOD": call.method,
            "CONTENT_TYPE": call.headers.get("content-type", ""),
            "HTTP_CONTENT_ENCODING": call.headers.get("content-encoding", ""),
            "REMOTE_USER": "octo",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "PATH": os.environ["PATH"],
        }
        done = subprocess.run(["git", "http-backend"], input=call.body, capture_output=True, env=env, check=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        return Reply(int(headers.pop("Status", "200").split()[0]), body, headers)

    def _download(self, call: Call) -> Reply:
        _, _, sign, sha = call.path.split("/")
        if sign != self._sign:
            return Reply(404)
        data = self.git("archive", "--format=tar.gz", f"--prefix=octo-records-{sha[:7]}/", sha)
        return Reply(200, data, {"Content-Type": "application/x-gzip"})

    def archive(self, call: Call, match: re.Match[str]) -> Reply:
        return Reply(302, b"", {"Location": f"{self.url}/archive/{self._sign}/{self._commit(match[1])}"})

    def ref(self, call: Call, match: re.Match[str]) -> Reply:
        self._not_empty()
        if not (sha := self.sha(f"refs/{match[1]}")):
            raise Refusal(404, "Not Found")
        return Reply(200, self._ref(match[1], sha))

    def branches(self, call: Call, match: re.Match[str]) -> Reply:
        rows = self.git("for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads").decode().split("\n")
        named = [row.split(" ", 1) for row in rows if row]
        commit = "{}/commits/{}"
        return Reply(
            200,
            [
                {"name": name, "commit": {"sha": sha, "url": commit.format(self.api, sha)}, "protected": False}
                for sha, name in named
            ],
        )

    def post_ref(self, call: Call, match: re.Match[str]) -> Reply:
        self._not_empty()
        name, sha = call.json["ref"].removeprefix("refs/"), self._commit(call.json["sha"])
        if self.sha(f"refs/{name}"):
            raise Refusal(422, "Reference already exists")
        self.git("update-ref", f"refs/{name}", sha, "0" * 40)
        return Reply(201, self._ref(name, sha))

    def patch_ref(self, call: Call, match: re.Match[str]) -> Reply:
        new, old = self._commit(call.json["sha"]), self.sha(f"refs/{match[1]}")
        if not old:
            raise Refusal(422, "Reference does not exist")
        if not call.json.get("force") and self.git("merge-base", "--all", old, new).decode().strip() != old:
            raise Refusal(422, "Update is not a fast forward")
        self.git("update-ref", f"refs/{match[1]}", new, old)
        return Reply(200, self._ref(match[1], new))

    def get_commit(self, call: Call, match: re.Match[str]) -> Reply:
        return Reply(200, self._git_commit(self._commit(match[1])))

    def post_commit(self, call: Call, match: re.Match[str]) -> Reply:
        self._not_empty()
        body = call.json
        who = {role: body.get(role) or body.get("author") for role in ("author", "committer")}
        env = {
            f"GIT_{role.upper()}_{field.upper()}": str(person[field])
            for role, person in who.items()
            for field in ("name", "email", "date")
        }
        parents = [arg for sha in body.get("parents", []) for arg in ("-p", self._commit(sha))]
        made = self.git("commit-tree", body["tree"], *parents, data=body["message"].encode(), env=env)
        return Reply(201, self._git_commit(made.decode().strip()))

    def list_commits(self, call: Call, match: re.Match[str]) -> Reply:
        self._not_empty()
        if not (start := self.sha(call.query.get("sha", "HEAD") + "^{commit}")):
            raise Refusal(404, "Not Found")
        count, page = int(call.query.get("per_page", "30")), int(call.query.get("page", "1"))
        paths = ["--", call.query["path"]] if "path" in call.query else []
        skip = f"--skip={count * (page - 1)}"
        shas = self.git("--literal-pathspecs", "rev-list", f"-{count + 1}", skip, start, *paths).decode().split()
        more = {**call.query, "page": str(page + 1)}
        link = {"Link": f'<{self.api}/commits?{urlencode(more)}>; rel="next"'} if len(shas) > count else {}
        return Reply(200, [self._listed_commit(sha) for sha in shas[:count]], link)

    def post_blob(self, call: Call, match: re.Match[str]) -> Reply:
        self._not_empty()
        sha = self._write(_content(call.json["content"], call.json["encoding"]))
        return Reply(201, {"sha": sha, "url": f"{self.api}/git/blobs/{sha}"})

    def get_blob(self, call: Call, match: re.Match[str]) -> Reply:
        if not self.sha(match[1] + "^{blob}"):
            raise Refusal(404, "Not Found")
        data = self.git("cat-file", "blob", match[1])
        return Reply(200, {**self._object("blobs", match[1]), **_encoded(data)})

    def get_tree(self, call: Call, match: re.Match[str]) -> Reply:
        if not self.sha(match[1] + "^{tree}"):
            raise Refusal(404, "Not Found")
        deep = ["-r", "-t"] if call.query.get("recursive") else []
        return Reply(200, self._tree(match[1], deep))

    def post_tree(self, call: Call, match: re.Match[str]) -> Reply:
        self._not_empty()
        if len(call.body) > TREE_LIMIT:
            raise Refusal(422, "Sorry, your request was too large")
        entries, base = call.json["tree"], call.json.get("base_tree")
        with tempfile.TemporaryDirectory() as folder:
            index = {"GIT_INDEX_FILE": f"{folder}/index"}
            self.git("read-tree", base or EMPTY_TREE, env=index)
            there = set(self.git("ls-files", "-z", env=index).decode().split("\0"))
            if any(entry.get("sha", "") is None and entry["path"] not in there for entry in entries):
                raise Refusal(422, "GitRPC::BadObjectState")
            lines = b"".join(self._index_line(entry) for entry in entries)
            self.git("update-index", "--replace", "-z", "--index-info", data=lines, env=index)
            made = self.git("write-tree", env=index).decode().strip()
        return Reply(201, self._tree(made, []))

    def get_contents(self, call: Call, match: re.Match[str]) -> Reply:
        ref = call.query.get("ref", "HEAD")
        if not (sha := self.sha(f"{ref}:{match[1]}")):
            raise Refusal(404, "Not Found" if self.sha("HEAD") else "This repository is empty.")
        if self.git("cat-file", "-t", sha).strip() != b"blob":
            return Reply(200, [self._content(row["path"], row["sha"]) for row in self._tree(sha, [])["tree"]])
        data = self.git("cat-file", "blob", sha)
        inline = _encoded(data) if len(data) <= 1_000_000 else {"content": "", "encoding": "none"}
        return Reply(200, {**self._content(match[1], sha), **inline, "type": "file"})

    def put_contents(self, call: Call, match: re.Match[str]) -> Reply:
        blob = self._write(base64.b64decode(call.json["content"]))
        head = self.sha("HEAD")
        there = self.git("ls-tree", head) if head else b""
        tree = self.git("mktree", data=there + f"100644 blob {blob}\t{match[1]}\n".encode()).decode().strip()
        env = {f"GIT_{r}_{f}": "octo" for r in ("AUTHOR", "COMMITTER") for f in ("NAME", "EMAIL")}
        parents = ["-p", head] if head else []
        made = self.git("commit-tree", tree, *parents, "-m", call.json["message"], env=env).decode().strip()
        self.git("update-ref", "HEAD", made)
        return Reply(201, {"content": self._content(match[1], blob), "commit": self._git_commit(made)})

    def _not_empty(self) -> None:
        if not self.git("for-each-ref", "--count=1"):
            raise Refusal(409, "Git Repository is empty.")

    def _commit(self, rev: str) -> str:
        if not (sha := self.sha(rev + "^{commit}")):
            raise Refusal(404 if len(rev) == 40 else 422, "Not Found")
        return sha

    def _write(self, data: bytes) -> str:
        """Store a blob as git does: a process for each would be slow with thousands of files."""
        raw = b"blob %d\0" % len(data) + data
        sha = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
        file = self.path / "objects" / sha[:2] / sha[2:]
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(zlib.compress(raw, 1))
        return sha

    def _index_line(self, entry: dict[str, Any]) -> bytes:
        sha = self._write(entry["content"].encode()) if "content" in entry else entry["sha"]
        mode = entry["mode"] if sha else "0"
        return f"{mode} {sha or '0' * 40}\t{entry['path']}".encode() + b"\0"

    def _object(self, kind: str, sha: str) -> dict[str, Any]:
        return {"sha": sha, "node_id": f"N_{sha[:12]}", "url": f"{self.api}/git/{kind}/{sha}"}

    def _ref(self, name: str, sha: str) -> dict[str, Any]:
        target = {"type": "commit", "sha": sha, "url": f"{self.api}/git/commits/{sha}"}
        return {
            "ref": f"refs/{name}",
            "node_id": "N_ref",
            "url": f"{self.api}/git/refs/{name}",
            "object": target,
        }

    def _tree(self, sha: str, deep: list[str]) -> dict[str, Any]:
        rows = [row.split("\t", 1) for row in self.git("ls-tree", "-z", "-l", *deep, sha).decode().split("\0") if row]
        tree = []
        for meta, path in rows:
            mode, kind, child, size = meta.split()
            entry: dict[str, Any] = {"path": path, "mode": mode, "type": kind, "sha": child}
            if kind == "blob":
                entry["size"] = int(size)
            if kind != "commit":
                entry["url"] = f"{self.api}/git/{kind}s/{child}"
            tree.append(entry)
        return {"sha": sha, "url": f"{self.api}/git/trees/{sha}", "tree": tree, "truncated": False}

    def _parts(self, sha: str) -> dict[str, Any]:
        form = "%T%x00%P%x00%an%x00%ae%x00%at%x00%cn%x00%ce%x00%ct%x00%B"
        tree, parents, an, ae, at, cn, ce, ct, message = (
            self.git("log", "-1", f"--format={form}", sha).decode().split("\0", 8)
        )
        return {
            "tree": {"sha": tree, "url": f"{self.api}/git/trees/{tree}"},
            "parents": parents.split(),
            "author": {"name": an, "email": ae, "date": _date(at)},
            "committer": {"name": cn, "email": ce, "date": _date(ct)},
            "message": message.rstrip("\n"),
        }

    def _git_commit(self, sha: str) -> dict[str, Any]:
        parts = self._parts(sha)
        page = f"{self.url}/{self.name}/commit/"
        parents = [{"sha": p, "url": f"{self.api}/git/commits/{p}", "html_url": page + p} for p in parts.pop("parents")]
        check = {"verified": False, "reason": "unsigned", "signature": None, "payload": None, "verified_at": None}
        return {
            **self._object("commits", sha),
            "html_url": page + sha,
            **parts,
            "parents": parents,
            "verification": check,
        }

    def _listed_commit(self, sha: str) -> dict[str, Any]:
        parts = self._parts(sha)
        url, page = f"{self.api}/commits/{sha}", f"{self.url}/{self.name}/commit/"
        parents = [{"sha": p, "url": f"{self.api}/commits/{p}", "html_url": page + p} for p in parts.pop("parents")]
        return {
            **self._object("commits", sha),
            "url": url,
            "html_url": page + sha,
            "comments_url": f"{url}/comments",
            "commit": {**parts, "url": f"{self.api}/git/commits/{sha}", "comment_count": 0},
            "author": None,
            "committer": None,
            "parents": parents,
        }

    def _content(self, path: str, sha: str) -> dict[str, Any]:
        kind = self.git("cat-file", "-t", sha).decode().strip()
        url, blob = f"{self.api}/contents/{path}", f"{self.api}/git/{kind}s/{sha}"
        page = f"{self.url}/{self.name}/blob/main/{path}"
        return {
            "type": "file" if kind == "blob" else "dir",
            "name": path.rpartition("/")[2],
            "path": path,
            "sha": sha,
            "size": int(self.git("cat-file", "-s", sha)) if kind == "blob" else 0,
            "url": url,
            "git_url": blob,
            "html_url": page,
            "download_url": page if kind == "blob" else None,
            "_links": {"self": url, "git": blob, "html": page},
        }


def _date(seconds: str) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _encoded(data: bytes) -> dict[str, Any]:
    return {"content": binascii.b2a_base64(data).decode(), "encoding": "base64", "size": len(data)}


def _content(text: str, encoding: str) -> bytes:
    return base64.b64decode(text) if encoding == "base64" else text.encode()


ROUTES: list[tuple[str, str, Handler]] = [
    ("GET", r"/git/ref/(.+)", GitHubServer.ref),
    ("GET", r"/branches", GitHubServer.branches),
    ("POST", r"/git/refs", GitHubServer.post_ref),
    ("PATCH", r"/git/refs/(.+)", GitHubServer.patch_ref),
    ("GET", r"/git/commits/(\w+)", GitHubServer.get_commit),
    ("POST", r"/git/commits", GitHubServer.post_commit),
    ("GET", r"/commits", GitHubServer.list_commits),
    ("POST", r"/git/blobs", GitHubServer.post_blob),
    ("GET", r"/git/blobs/(\w+)", GitHubServer.get_blob),
    ("GET", r"/git/trees/(\w+)", GitHubServer.get_tree),
    ("POST", r"/git/trees", GitHubServer.post_tree),
    ("GET", r"/contents/(.+)", GitHubServer.get_contents),
    ("PUT", r"/contents/(.+)", GitHubServer.put_contents),
    ("GET", r"/tarball/(\w+)", GitHubServer.archive),
]
