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

import yaml

LFS_ENDINGS = (".safetensors", ".parquet", ".png")
PAGE = 5  # files in a page of a listing
DATE = "2026-01-01T00:00:00.000Z"  # of every commit
GOOD, READ_ONLY = "hf_good", "hf_readonly"


@dataclass
class Commit:
    sha: str
    message: str
    files: dict  # path -> bytes
    parent: "Commit | None" = None


class Repo:
    def __init__(self, private=False, gated=False, files=()):
        self.private, self.gated = private, gated  # gated: False, "auto" or "manual"
        self.commits = []  # as they came, whatever their branch
        self.branches, self.tags = {"main": None}, {}  # a name -> its commit
        self.commit("initial commit", dict(files))

    def commit(self, message, files, branch="main"):
        parent = self.branches.get(branch) or self.branches["main"]
        sha = hashlib.sha1(f"{id(self)} {len(self.commits)}".encode()).hexdigest()
        self.branches[branch] = Commit(sha, message, files, parent)
        self.commits.append(self.branches[branch])
        return self.branches[branch]

    def find(self, revision):
        """The commit that a branch, tag or hash names; None where there is none."""
        named = {**{commit.sha: commit for commit in self.commits}, **self.tags, **self.branches}
        return named.get(revision)


@dataclass
class Fault:
    method: str
    pattern: str
    times: int
    status: int = 500
    headers: dict = field(default_factory=dict)
    cut: int | None = None  # bytes of the request (of a GET: of the answer) before the line goes dead
    body: bytes = b""
    after: int = 0  # requests that go well before


class HubServer:
    """With it as a context manager, a Hub on loopback; `environment` is how a child process finds it."""

    def __init__(self):
        self.repos = {}  # (type, id) -> Repo
        self.requests = []  # "METHOD path"
        self.objects = {}  # sha256 -> bytes of an LFS object that arrived whole
        self.parts = {}
        self.uploaded = []  # sha256 of each LFS object or part that arrived whole, in order
        self.tokens = {
            GOOD: {"name": "me", "orgs": ["our"], "role": "write"},
            READ_ONLY: {"name": "me", "orgs": ["our"], "role": "read"},
        }
        self.faults = []
        self.corrupt = set()  # paths whose bytes arrive changed
        self.part_size = None  # bytes of a part; None: objects come in one piece
        self.lfs_above = 1_000_000  # a larger file goes by git-LFS whatever its ending
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

    def add(self, repo_id, files, type="model", private=False, tag=None, revision="main"):
        """A commit of `files` (path -> bytes or text) on a branch; what is not there yet is made. Says its hash."""
        repo = self.repos.setdefault((type, repo_id), Repo(private))
        contents = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
        before = (repo.branches.get(revision) or repo.branches["main"]).files
        commit = repo.commit(f"add {', '.join(files)}", {**before, **contents}, revision)
        if tag:
            repo.tags[tag] = commit
        return commit.sha

    def files(self, repo_id, type="model", revision="main"):
        return self.repos[type, repo_id].find(revision).files

    def fail(self, method, pattern, status=500, times=1, cut=None, body=b"", after=0, **headers):
        """The next `times` requests for a path in which `pattern` is found fail, once `after` of them went well."""
        headers = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        self.faults.append(Fault(method, pattern, times, status, headers, cut, body, after))

    def cut(self, method, pattern, after_bytes, times=1):
        """The line goes dead after so many bytes of what the client sends, or, of a GET, of what it is sent."""
        self.fail(method, pattern, times=times, cut=after_bytes)

    def by_lfs(self, path, size):
        return size > 0 and (path.endswith(LFS_ENDINGS) or size > self.lfs_above)

    def fault(self, method, path):
        """What the test wants to go wrong with this request; None where it is to go well."""
        for fault in self.faults:
            if fault.times and fault.method == method and re.search(fault.pattern, path):
                if not fault.after:
                    fault.times -= 1
                    return fault
                fault.after -= 1
        return None

    def environment(self, home, token=GOOD):
        env = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        env |= {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        env |= {"HF_DATASETS_CACHE": f"{home}/datasets", "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        env.pop("HF_TOKEN", None)
        return env | ({"HF_TOKEN": token} if token else {})


class Refusal(Exception):
    def __init__(self, status, message="", body=b"", **headers):
        self.status, self.message, self.body = status, message, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def serve(self):
        parts = urlsplit(self.path)
        self.query, path = parse_qs(parts.query), unquote(parts.path)
        with self.hub.lock:
            self.hub.requests.append(f"{self.command} {path}")
            fault = self.hub.fault(self.command, path)
        cut = fault.cut if fault else None
        if cut is not None and self.command != "GET":
            self.received(cut)
            return self.hang_up()
        self.body = self.received()
        try:
            if fault and cut is None:
                raise Refusal(fault.status, "told to fail", fault.body, **fault.headers)
            with self.hub.lock:
                answer = self.routed(parts.path)
            self.answer(*answer, cut=cut)
        except Refusal as refusal:
            message = refusal.body or json.dumps({"error": refusal.message}).encode()
            headers = {"Content-Type": "application/json", "X-Error-Message": refusal.message, **refusal.headers}
            self.answer(refusal.status, message, headers)

    do_GET = do_HEAD = do_POST = do_PUT = serve

    def received(self, limit=None):
        """The request's body, or its first `limit` bytes."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            length = int(self.headers.get("Content-Length") or 0)
            return self.rfile.read(length if limit is None else min(limit, length))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            if limit is not None and len(body) + size >= limit:
                return body + self.rfile.read(limit - len(body))
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def hang_up(self):
        self.close_connection = True
        self.connection.close()

    def answer(self, status, body=b"", headers=None, cut=None):
        if not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.hang_up()

    def log_message(self, *args):
        pass

    def routed(self, path):
        for pattern, route in ROUTES:
            if match := re.fullmatch(pattern, path):
                found = match.groupdict()  # a branch may have a slash in its name: unquoted only now
                return getattr(self, route)(**{name: value and unquote(value) for name, value in found.items()})
        raise Refusal(404, f"no such route: {path}")

    @property
    def user(self):
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in self.hub.tokens:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.hub.tokens.get(token)

    def belongs(self, repo_id):
        return self.user is not None and repo_id.split("/")[0] in (self.user["name"], *self.user["orgs"])

    def found(self, kind, repo_id):
        repo = self.hub.repos.get((kind or "model", repo_id))
        user = self.user  # a wrong token is refused also where none is needed
        if repo is None or (repo.private and not self.belongs(repo_id)):
            raise Refusal(404 if user else 401, "Repository not found", X_Error_Code="RepoNotFound")
        return repo

    def may_write(self, repo_id, refusal="You don't have the required permissions"):
        if not self.user:
            raise Refusal(401, "Invalid username or password.")
        if self.user["role"] != "write" or not self.belongs(repo_id):
            raise Refusal(403, refusal)

    def writable(self, kind, repo_id):
        self.may_write(repo_id)
        return self.found(kind, repo_id)

    def at(self, repo, revision):
        commit = repo.find(revision)
        if commit is None:
            raise Refusal(404, "Invalid rev id", X_Error_Code="RevisionNotFound")
        return commit

    # accounts and repositories

    def whoami(self):
        if not self.user:
            raise Refusal(401, "Invalid username or password.")
        orgs = [{"name": name, "type": "org"} for name in self.user["orgs"]]
        access = {"accessToken": {"role": self.user["role"]}}
        return 200, {"name": self.user["name"], "type": "user", "orgs": orgs, "auth": access}

    def create(self):
        asked = json.loads(self.body)
        owner = asked.get("organization") or (self.user or {}).get("name")
        kind, repo_id = asked.get("type") or "model", f"{owner}/{asked['name']}"
        self.may_write(repo_id, "You don't have the rights to create a model under this namespace")
        key, url = (kind, repo_id), f"{self.hub.url}/{'' if kind == 'model' else f'{kind}s/'}{repo_id}"
        if key in self.hub.repos:
            return 409, {"error": "You already created this model repo", "url": url, "id": repo_id}
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repos[key] = Repo(private, files={".gitattributes": b""})
        return 200, {"url": url, "id": repo_id}

    def settings(self, kind, repo_id):
        repo, asked = self.writable(kind, repo_id), json.loads(self.body)
        if visibility := asked.get("visibility"):
            repo.private = visibility == "private"
        repo.gated = asked.get("gated", repo.gated)
        return 200, {"private": repo.private, "gated": repo.gated}

    def info(self, kind, repo_id, revision="main"):
        repo = self.found(kind, repo_id)
        commit = self.at(repo, revision)
        siblings = [{"rfilename": path} for path in commit.files]
        for sibling in siblings if "blobs" in self.query else ():
            entry = self.entry(commit, sibling["rfilename"])
            sibling |= {"size": entry["size"], "blobId": entry["oid"]}
            if lfs := entry.get("lfs"):
                sibling["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
        return 200, {
            "_id": "0", "id": repo_id, "sha": commit.sha, "private": repo.private, "gated": repo.gated, "tags": [],
            "downloads": 0, "likes": 0, "siblings": siblings,
        }  # fmt: skip

    def refs(self, kind, repo_id):
        repo = self.found(kind, repo_id)
        listed = {
            place: [
                {"name": name, "ref": f"refs/{place}/{name}", "targetCommit": commit.sha}
                for name, commit in commits.items()
            ]
            for place, commits in (("heads", repo.branches), ("tags", repo.tags))
        }
        return 200, {"branches": listed["heads"], "tags": listed["tags"], "converts": [], "pullRequests": []}

    def new_ref(self, names, name, commit):
        if name in names:
            raise Refusal(409, "Reference already exists")
        names[name] = commit
        return 200, {}

    def tag(self, kind, repo_id, revision):
        repo = self.writable(kind, repo_id)
        return self.new_ref(repo.tags, json.loads(self.body)["tag"], self.at(repo, revision))

    def branch(self, kind, repo_id, name):
        repo = self.writable(kind, repo_id)
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        return self.new_ref(repo.branches, name, self.at(repo, start))

    def commits(self, kind, repo_id, revision):
        commit, listed = self.at(self.found(kind, repo_id), revision), []
        while commit:
            listed.append({"id": commit.sha, "title": commit.message, "message": "", "date": DATE, "authors": []})
            commit = commit.parent
        return 200, listed

    def entry(self, commit, path):
        content = commit.files[path]
        described = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
        if self.hub.by_lfs(path, len(content)):
            described["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return described

    def folder(self, commit, path):
        inside = {name: content for name, content in commit.files.items() if name.startswith(f"{path}/")}
        return {"type": "directory", "path": path, "oid": git_hash(repr(inside).encode()), "size": 0}

    def expanded(self, commit, entries):
        """With `expand`, who last changed each of the entries."""

        def state(commit, path):
            return commit.files.get(path) or {k: v for k, v in commit.files.items() if k.startswith(f"{path}/")}

        for entry in entries:
            last = commit
            while last.parent and state(last.parent, entry["path"]) == state(commit, entry["path"]):
                last = last.parent
            entry["lastCommit"] = {"id": last.sha, "title": last.message, "date": DATE}
        return entries

    def tree(self, kind, repo_id, revision, folder=None):
        commit = self.at(self.found(kind, repo_id), revision)
        files = commit.files
        inside = {path: content for path, content in files.items() if not folder or path.startswith(f"{folder}/")}
        if folder and not inside:
            raise Refusal(404, "no such folder", X_Error_Code="EntryNotFound")
        depth = len(folder.split("/")) if folder else 0
        entries = {}
        for path in sorted(inside):
            steps = path.split("/")
            for end in range(depth + 1, len(steps)):
                name = "/".join(steps[:end])
                entries[name] = self.folder(commit, name)
            entries[path] = self.entry(commit, path)
        if not self.asked("recursive"):
            entries = {path: entry for path, entry in entries.items() if path.count("/") == depth}
        start = int(self.query.get("cursor", ["0"])[0])
        page, headers = list(entries.values())[start : start + PAGE], {}
        if self.asked("expand"):
            self.expanded(commit, page)
        if start + PAGE < len(entries):
            others = "&".join(f"{name}={value[0]}" for name, value in self.query.items() if name != "cursor")
            headers["Link"] = f'<{self.hub.url}{urlsplit(self.path).path}?{others}&cursor={start + PAGE}>; rel="next"'
        return 200, json.dumps(page).encode(), {"Content-Type": "application/json", **headers}

    def paths_info(self, kind, repo_id, revision):
        commit = self.at(self.found(kind, repo_id), revision)
        self.query = parse_qs(self.body.decode())
        asked = self.query.get("paths", [])
        found = [self.entry(commit, path) for path in asked if path in commit.files]
        folders = [path for path in asked if any(name.startswith(f"{path}/") for name in commit.files)]
        found += [self.folder(commit, path) for path in folders]
        return 200, self.expanded(commit, found) if self.asked("expand") else found

    def asked(self, option):
        return self.query.get(option, ["false"])[0].lower() not in ("false", "0")

    def validate_yaml(self):
        block = re.match(r"---\s*\n(.*?)^---\s*$", json.loads(self.body)["content"], re.DOTALL | re.MULTILINE)
        try:
            whole = block is None or isinstance(yaml.safe_load(block[1]), dict)
        except yaml.YAMLError:
            whole = False
        errors = [] if whole else [{"message": "the metadata is not a YAML mapping"}]
        return 400 if errors else 200, {"errors": errors, "warnings": []}

    # uploads

    def preupload(self, kind, repo_id, revision):
        repo = self.writable(kind, repo_id)
        files = self.at(repo, revision).files
        asked = json.loads(self.body)["files"]
        return 200, {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if self.hub.by_lfs(file["path"], file["size"]) else "regular",
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
        self.hub.uploaded.append(oid)
        return 200, b""

    def put_part(self, oid, part):
        self.hub.parts[oid, int(part)] = self.body
        self.hub.uploaded.append(hashlib.sha256(self.body).hexdigest())
        return 200, b"", {"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'}

    def complete(self, oid):
        parts = []
        for said in json.loads(self.body)["parts"]:
            parts.append(self.hub.parts.get((oid, said["partNumber"]), b""))
            if said["etag"].strip('"') != hashlib.md5(parts[-1]).hexdigest():
                raise Refusal(400, f"part {said['partNumber']} is not the one that arrived")
        self.keep(oid, b"".join(parts))
        return 200, {}

    def keep(self, oid, content):
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refusal(400, "the content has another SHA-256 than was announced")
        self.hub.objects[oid] = content

    def verify(self, oid):
        if oid not in self.hub.objects:
            raise Refusal(404, "no such object")
        if len(self.hub.objects[oid]) != json.loads(self.body)["size"]:
            raise Refusal(422, "the object has another size than was announced")
        return 200, {}

    def commit(self, kind, repo_id, revision):
        repo = self.writable(kind, repo_id)
        head, message = self.at(repo, revision), ""
        if revision not in repo.branches:
            raise Refusal(400, f"{revision} is no branch")
        files = dict(head.files)
        for line in self.body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, head.sha):
                    raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                content = self.hub.objects.get(value["oid"])
                if content is None or len(content) != value.get("size", len(content)):  # a copy says no size
                    raise Refusal(400, f"{value['path']}: its LFS object is not there")
                files[value["path"]] = content
            else:
                name = value["path"].rstrip("/")
                gone = [path for path in files if path == name or path.startswith(f"{name}/")]
                if not gone:
                    raise Refusal(404, f"{name} is not there", X_Error_Code="EntryNotFound")
                for path in gone:
                    del files[path]
        sha = repo.commit(message, files, revision).sha
        url = f"{self.hub.url}/{'' if kind == 'model' else f'{kind}s/'}{repo_id}/commit/{sha}"
        return 200, {"success": True, "commitUrl": url, "commitOid": sha, "hookOutput": ""}

    # downloads

    def resolve(self, kind, repo_id, revision, path):
        kind = kind and kind.removesuffix("s/")
        repo = self.found(kind, repo_id)
        if repo.gated and not self.belongs(repo_id):
            raise Refusal(403 if self.user else 401, f"Access to {repo_id} is restricted", X_Error_Code="GatedRepo")
        commit = self.at(repo, revision)
        files, sha = commit.files, commit.sha
        headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if path not in files:
            raise Refusal(404, "Entry not found", X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        content = files[path]
        if self.hub.by_lfs(path, len(content)):
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
        if start >= len(content):
            raise Refusal(416, "no such bytes", Content_Range=f"bytes */{len(content)}")
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
    (rf"{_REPO}/settings", "settings"),
    (rf"{_REPO}/tag/(?P<revision>[^/]+)", "tag"),
    (rf"{_REPO}/branch/(?P<name>[^/]+)", "branch"),
    (rf"{_REPO}/commits/(?P<revision>[^/]+)", "commits"),
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
