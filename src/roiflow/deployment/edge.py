"""The edge's nginx configuration: `split_clients`, the same on one machine and a cluster."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from roiflow.errors import ServiceError
from roiflow.experiment.assignment import hundredths

SALT = "ad-ranker:"
"""Precedes the user id in the hash; another experiment takes another."""


@dataclass(frozen=True)
class Arm:
    """A share of the users and the server that answers them."""

    name: str
    percent: float
    upstream: str
    """host:port."""


@dataclass(frozen=True)
class Pages:
    """Files that the edge shows itself, of one machine."""

    folder: Path
    """Of the start page, index.html."""
    runs: Path
    """Of the runs' checkouts, for their reports."""
    user: str | None
    """Who reads them: nginx started by root would otherwise read as nobody, who may not."""


_TEMPLATE = """\
# Written by roiflow; the next deployment writes it anew.
worker_processes {workers};
{user}daemon off;
pid "{folder}/nginx.pid";
error_log stderr warn;

events {{
    worker_connections 1024;
}}

http {{
    access_log off;
    client_body_temp_path "{folder}/body";
    proxy_temp_path "{folder}/proxy";
    fastcgi_temp_path "{folder}/fastcgi";
    uwsgi_temp_path "{folder}/uwsgi";
    scgi_temp_path "{folder}/scgi";
    client_max_body_size 1m;
    client_body_buffer_size 1m; # no file: a worker may not be let into the folder

{split}
    server {{
        listen {listen};
        location = /edge {{
            default_type text/plain;
            return 200 "$arm {revision}\\n";
        }}
{pages}{slates}
    }}
}}
"""

_SPLIT = """\
    # A user stays in one arm; a request without the header is split by its address.
    map $http_x_user_id $unit {{
        ""      $remote_addr;
        default $http_x_user_id;
    }}
    split_clients "{salt}$unit" $arm {{
{shares}
    }}
{upstreams}"""

_NO_ARM = """\
    map $remote_addr $arm {
        default none;
    }
"""

_SLATES = """\
        location / {
            proxy_pass http://$arm;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Arm $arm;
            proxy_connect_timeout 1s;
            proxy_read_timeout 10s;
            proxy_next_upstream error timeout;
            proxy_next_upstream_tries 2;
            add_header X-Arm $arm always;
        }"""

_NO_SLATES = """\
        location / {
            default_type application/json;
            return 503 '{"error": "nothing is deployed yet: run the weekly training first"}';
        }"""

_PAGES = """\
        location = / {{
            root "{folder}";
            default_type "text/html; charset=utf-8";
            add_header Cache-Control no-cache;
            try_files /index.html =404;
        }}
        # Of a run's checkout these two pages and no other file.
        location ~ "^/runs/([a-z_]+-[0-9]{{4}}-W[0-9]{{2}})/(report/report|drift/drift)\\.html$" {{
            alias "{runs}/$1/data/$2.html";
            default_type "text/html; charset=utf-8";
            add_header Cache-Control no-cache;
        }}
"""


def render(
    arms: Sequence[Arm],
    salt: str,
    listen: str,
    folder: str,
    workers: int = 1,
    pages: Pages | None = None,
) -> str:
    """The configuration for `arms`; the last takes what the others leave.

    Every arm but the last falls back on the last, so a dead canary costs no slate. Without any,
    only `pages` are shown, and a slate is refused with 503. Raises ServiceError where the
    percentages do not add to 100 or a name is taken twice.
    """
    if arms:
        _check(arms)
    values = {
        "workers": workers,
        "user": f"user {pages.user};\n" if pages and pages.user else "",
        "folder": folder,
        "split": _split(arms, salt) if arms else _NO_ARM,
        "listen": listen,
        "pages": _PAGES.format(folder=pages.folder, runs=pages.runs) if pages else "",
        "slates": _SLATES if arms else _NO_SLATES,
    }
    digest = hashlib.sha256(repr(values).encode()).hexdigest()[:12]
    return _TEMPLATE.format(revision=digest, **values)


def _check(arms: Sequence[Arm]) -> None:
    total = sum(hundredths(arm.percent) for arm in arms)
    if total != 10_000:
        shares = ", ".join(f"{arm.name} {arm.percent:g}" for arm in arms)
        raise ServiceError(f"arms add to {total / 100:g} percent, not 100: {shares}")
    if len({arm.name for arm in arms}) != len(arms):
        raise ServiceError(f"an arm's name is taken twice: {[arm.name for arm in arms]}")


def _split(arms: Sequence[Arm], salt: str) -> str:
    rest = arms[-1]
    shares = [f"        {arm.percent:.2f}% {arm.name};" for arm in arms[:-1] if arm.percent > 0]
    shares.append(f"        * {rest.name};")
    upstreams = "".join(_upstream(arm, "" if arm is rest else rest.upstream) for arm in arms)
    return _SPLIT.format(salt=salt, shares="\n".join(shares), upstreams=upstreams)


def revision(configuration: str) -> str:
    """What GET /edge answers beside the arm: which configuration is in force."""
    found = re.search(r'return 200 "\$arm (\w+)', configuration)
    if found is None:
        raise ServiceError("not a configuration of the edge: it has no revision")
    return found[1]


def _upstream(arm: Arm, backup: str) -> str:
    spare = f"\n        server {backup} backup;" if backup and backup != arm.upstream else ""
    return f"""
    upstream {arm.name} {{
        server {arm.upstream} max_fails=1 fail_timeout=2s;{spare}
        keepalive 64;
    }}
"""
