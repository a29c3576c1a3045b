"""The Hub, played by a server on this machine: what huggingface_hub and datasets ask of it, its refusals and faults.

Repositories are lists of commits, each a map of paths to bytes. Weights go by git-LFS, in one piece or in several, as
the Hub takes them from a client without xet. A test says which request is to fail, and how often.
"""

import base64
import hashlib
import http.server
import json
import os
import re
import threading
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

LFS_ENDINGS = (".safetensors", ".parquet", ".png")
PAGE = 5  # files in a page of a listing
GOOD, READ_ONLY = "hf_good", "hf_readonly"


@dataclass
class Repo:
    private: bool = False
    commits: list = field(default_factory=list)  # {path: bytes}, oldest first
    refs: dict = field(default_factory=dict)  # a branch's or tag's name -> commit number; main is the last

    def sha(self, number=None):
        number = len(self.commits) - 1 if number is None else number
        return hashlib.sha1(f"{id(self)} {number}".encode()).hexdigest()

    def number(self, revision):
        """The commit that a branch, tag or hash names; None where there is none."""
        if revision == "main":
            return len(self.commits) - 1
        shas = [self.sha(number) for number in range(len(self.commits))]
        return shas.index(revision) if revision in shas else self.refs.get(revision)


@dataclass
class Fault:
    method: str
    pattern: str
    times: int
    status: int = 500
    headers: dict = field(default_factory=dict)
    cut: int | None = None  # bytes of the request to read before the line goes dead


class HubServer:
    """With it as a context manager, a Hub on loopback; `environment` is how a child process finds it."""

    def __init__(self):
        self.repos = {}  # (type, id) -> Repo
        self.requests = []  # "METHOD path"
        self.objects = {}  # sha256 -> bytes of an LFS object that arrived whole
        self.parts = {}
        self.faults = []
        self.corrupt = set()  # paths whose bytes arrive changed
        self.part_size = None  # bytes of a part; None: objects come in one piece
        self.lock = threading.RLock()

    def __enter__(self):
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.cdn_url = f"http://localhost:{self.server.server_port}"  # another host, as that of large files is
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()

    def add(self, repo_id, files, type="model", private=False, tag=None):
        """A commit of `files` (path -> bytes or text); the repository is made where there is none."""
        repo = self.repos.setdefault((type, repo_id), Repo(private, [{}]))
        contents = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
        repo.commits.append({**repo.commits[-1], **contents})
        if tag:
            repo.refs[tag] = len(repo.commits) - 1
        return repo.sha()

    def files(self, repo_id, type="model"):
        return self.repos[type, repo_id].commits[-1]

    def fail(self, method, pattern, status=500, times=1, cut=None, **headers):
        headers = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        self.faults.append(Fault(method, pattern, times, status, headers, cut))

    def environment(self, home, token=GOOD):
        env = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        env |= {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        env |= {"HF_DATASETS_CACHE": f"{home}/datasets", "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        env.pop("HF_TOKEN", None)
        return env | ({"HF_TOKEN": token} if token else {})


class Refusal(Exception):
    def __init__(self, status, message="", **headers):
        self.status, self.message = status, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def serve(self):
        parts = urlsplit(self.path)
        self.query, path = parse_qs(parts.query), unquote(parts.path)
        with self.hub.lock:
            self.hub.requests.append(f"{self.command} {path}")
            fault = next(
                (f for f in self.hub.faults if f.times and f.method == self.command and re.search(f.pattern, path)),
                None,
            )
            if fault:
                fault.times -= 1
        length = int(self.headers.get("Content-Length") or 0)
        if fault and fault.cut is not None:
            self.rfile.read(min(fault.cut, length))
            self.close_connection = True
            self.connection.close()
            return
        self.body = self.chunked() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(length)
        try:
            if fault:
                raise Refusal(fault.status, "told to fail", **fault.headers)
            with self.hub.lock:
                self.answer(*self.routed(path))
        except Refusal as refusal:
            message = json.dumps({"error": refusal.message}).encode()
            headers = {"Content-Type": "application/json", "X-Error-Message": refusal.message, **refusal.headers}
            self.answer(refusal.status, message, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

    def chunked(self):
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self, status, body=b"", headers=None):
        if not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass

    def routed(self, path):
        for pattern, route in ROUTES:
            if match := re.fullmatch(pattern, path):
                return getattr(self, route)(**match.groupdict())
        raise Refusal(404, f"no such route: {path}")

    @property
    def user(self):
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in (GOOD, READ_ONLY):
            raise Refusal(401, "Invalid credentials in Authorization header")
        return token or None

    def found(self, kind, repo_id):
        repo = self.hub.repos.get((kind or "model", repo_id))
        if repo is None or (repo.private and not self.user):
            raise Refusal(404 if self.user else 401, "Repository not found", X_Error_Code="RepoNotFound")
        return repo

    def writable(self, kind, repo_id):
        if not self.user:
            raise Refusal(401, "Invalid username or password.")
        if self.user == READ_ONLY or not repo_id.startswith("me/"):
            raise Refusal(403, "You don't have the required permissions")
        return self.found(kind, repo_id)

    def at(self, repo, revision):
        number = repo.number(revision)
        if number is None:
            raise Refusal(404, "Invalid rev id", X_Error_Code="RevisionNotFound")
        return repo.commits[number], repo.sha(number)

    # accounts and repositories

    def whoami(self):
        if not self.user:
            raise Refusal(401, "Invalid username or password.")
        role = "read" if self.user == READ_ONLY else "write"
        return 200, {"name": "me", "type": "user", "orgs": [], "auth": {"accessToken": {"role": role}}}

    def create(self):
        asked = json.loads(self.body)
        repo_id = f"{asked.get('organization') or 'me'}/{asked['name']}"
        key = (asked.get("type") or "model", repo_id)
        if not self.user:
            raise Refusal(401, "Invalid username or password.")
        if self.user == READ_ONLY or not repo_id.startswith("me/"):
            raise Refusal(403, "You don't have the rights to create a model under this namespace")
        url = f"{self.hub.url}/{repo_id}"
        if key in self.hub.repos:
            return 409, {"error": "You already created this model repo", "url": url, "id": repo_id}
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repos[key] = Repo(private, [{".gitattributes": b""}])
        return 200, {"url": url, "id": repo_id}

    def info(self, kind, repo_id, revision="main"):
        repo = self.found(kind, repo_id)
        files, sha = self.at(repo, revision)
        return 200, {
            "_id": "0", "id": repo_id, "sha": sha, "private": repo.private, "gated": False, "tags": [],
            "downloads": 0, "likes": 0, "siblings": [{"rfilename": path} for path in files],
        }  # fmt: skip

    def refs(self, kind, repo_id):
        repo = self.found(kind, repo_id)
        tags = [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": repo.sha(n)} for name, n in repo.refs.items()
        ]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.sha()}
        return 200, {"branches": [main], "tags": tags, "converts": []}

    def entry(self, path, content):
        described = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
        if path.endswith(LFS_ENDINGS):
            described["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return described

    def tree(self, kind, repo_id, revision, folder=None):
        files, _ = self.at(self.found(kind, repo_id), revision)
        inside = {path: content for path, content in files.items() if not folder or path.startswith(f"{folder}/")}
        if folder and not inside:
            raise Refusal(404, "no such folder", X_Error_Code="EntryNotFound")
        depth = len(folder.split("/")) if folder else 0
        entries = {}
        for path, content in sorted(inside.items()):
            steps = path.split("/")
            for end in range(depth + 1, len(steps)):
                name = "/".join(steps[:end])
                entries[name] = {"type": "directory", "path": name, "oid": git_hash(name.encode()), "size": 0}
            entries[path] = self.entry(path, content)
        if "recursive" not in self.query or self.query["recursive"][0].lower() in ("false", "0"):
            entries = {path: entry for path, entry in entries.items() if path.count("/") == depth}
        start = int(self.query.get("cursor", ["0"])[0])
        page, headers = list(entries.values())[start : start + PAGE], {}
        if start + PAGE < len(entries):
            others = "&".join(f"{name}={value[0]}" for name, value in self.query.items() if name != "cursor")
            headers["Link"] = f'<{self.hub.url}{urlsplit(self.path).path}?{others}&cursor={start + PAGE}>; rel="next"'
        return 200, json.dumps(page).encode(), {"Content-Type": "application/json", **headers}

    def paths_info(self, kind, repo_id, revision):
        files, _ = self.at(self.found(kind, repo_id), revision)
        text = self.body.decode()
        asked = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
        found = [self.entry(path, files[path]) for path in asked if path in files]
        folders = [path for path in asked if any(name.startswith(f"{path}/") for name in files)]
        return 200, found + [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]

    def validate_yaml(self):
        return 200, {"errors": [], "warnings": []}

    # uploads

    def preupload(self, kind, repo_id, revision):
        repo = self.writable(kind, repo_id)
        files, _ = self.at(repo, revision)
        asked = json.loads(self.body)["files"]
        return 200, {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LFS_ENDINGS) else "regular",
                    "shouldIgnore": False,
                    "oid": git_hash(files[file["path"]]) if file["path"] in files else None,
                }
                for file in asked
            ]
        }

    def batch(self, kind, repo_id):
        self.writable(kind and kind.removesuffix("s/"), repo_id)
        answers = []
        for wanted in json.loads(self.body)["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            answer = {"oid": oid, "size": size}
            if oid not in self.hub.objects:
                verify = {"href": f"{self.hub.url}/lfs/{oid}/verify"}
                upload = {"href": f"{self.hub.url}/lfs/{oid}"}
                if self.hub.part_size and size > self.hub.part_size:
                    count = -(-size // self.hub.part_size)
                    urls = {str(n): f"{self.hub.url}/lfs/{oid}/{n}" for n in range(1, count + 1)}
                    upload = {"href": f"{self.hub.url}/lfs/{oid}/complete"}
                    upload["header"] = {"chunk_size": str(self.hub.part_size), **urls}
                answer["actions"] = {"upload": upload, "verify": verify}
            answers.append(answer)
        transfer = "multipart" if any("header" in a.get("actions", {}).get("upload", {}) for a in answers) else "basic"
        return 200, {"transfer": transfer, "objects": answers}

    def put_object(self, oid):
        self.keep(oid, self.body)
        return 200, b""

    def put_part(self, oid, part):
        self.hub.parts[oid, int(part)] = self.body
        return 200, b"", {"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'}

    def complete(self, oid):
        numbers = [part["partNumber"] for part in json.loads(self.body)["parts"]]
        self.keep(oid, b"".join(self.hub.parts[oid, number] for number in numbers))
        return 200, {}

    def keep(self, oid, content):
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refusal(400, "the content has another SHA-256 than was announced")
        self.hub.objects[oid] = content

    def verify(self, oid):
        if oid not in self.hub.objects:
            raise Refusal(404, "no such object")
        return 200, {}

    def commit(self, kind, repo_id, revision):
        repo = self.writable(kind, repo_id)
        files, sha = self.at(repo, revision)
        files = dict(files)
        for line in self.body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                if value.get("parentCommit") not in (None, sha):
                    raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                content = self.hub.objects.get(value["oid"])
                if content is None or len(content) != value["size"]:
                    raise Refusal(400, f"{value['path']}: its LFS object is not there")
                files[value["path"]] = content
            else:
                del files[value["path"]]
        repo.commits.append(files)
        url = f"{self.hub.url}/{repo_id}/commit/{repo.sha()}"
        return 200, {"success": True, "commitUrl": url, "commitOid": repo.sha(), "hookOutput": ""}

    # downloads

    def resolve(self, kind, repo_id, revision, path):
        kind = kind and kind.removesuffix("s/")
        files, sha = self.at(self.found(kind, repo_id), revision)
        headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if path not in files:
            raise Refusal(404, "Entry not found", X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        content = files[path]
        if path.endswith(LFS_ENDINGS):
            oid = hashlib.sha256(content).hexdigest()
            self.hub.objects[oid] = content
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{oid}"', "ETag": f'"{oid}"'}
            return 302, b"", {**headers, "Location": f"{self.hub.cdn_url}/cdn/{oid}?path={path}"}
        return self.sent(path, content, {**headers, "ETag": f'"{git_hash(content)}"'})

    def cdn(self, oid):
        return self.sent(self.query["path"][0], self.hub.objects[oid], {"ETag": f'"{oid}"'})

    def sent(self, path, content, headers):
        if path in self.hub.corrupt:
            content = bytes(255 - byte for byte in content)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not asked:
            return 200, content, headers
        start, end = int(asked[1]), int(asked[2] or len(content) - 1)
        piece = content[start : end + 1]
        return 206, piece, {**headers, "Content-Range": f"bytes {start}-{start + len(piece) - 1}/{len(content)}"}


def git_hash(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_REPO = r"/api/(?P<kind>model|dataset)s/(?P<repo_id>[^/]+/[^/]+)"
_RAW = r"/(?P<kind>datasets/)?(?P<repo_id>[^/]+/[^/]+)"
ROUTES = [
    (r"/api/whoami-v2", "whoami"),
    (r"/api/repos/create", "create"),
    (r"/api/validate-yaml", "validate_yaml"),
    (rf"{_REPO}", "info"),
    (rf"{_REPO}/revision/(?P<revision>.+)", "info"),
    (rf"{_REPO}/refs", "refs"),
    (rf"{_REPO}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", "tree"),
    (rf"{_REPO}/paths-info/(?P<revision>[^/]+)", "paths_info"),
    (rf"{_REPO}/preupload/(?P<revision>[^/]+)", "preupload"),
    (rf"{_REPO}/commit/(?P<revision>[^/]+)", "commit"),
    (rf"{_RAW}\.git/info/lfs/objects/batch", "batch"),
    (r"/lfs/(?P<oid>\w+)", "put_object"),
    (r"/lfs/(?P<oid>\w+)/verify", "verify"),
    (r"/lfs/(?P<oid>\w+)/complete", "complete"),
    (r"/lfs/(?P<oid>\w+)/(?P<part>\d+)", "put_part"),
    (r"/cdn/(?P<oid>\w+)", "cdn"),
    (rf"{_RAW}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]
